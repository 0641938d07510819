"""Trees of changed layers, written over the trees of earlier ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers import build_layers, earlier_tree, lower_folders, segments, unpack_layer, unpack_to_store
from pipeline.layers.earlier_tree import remember_tree
from pipeline.layers.layer import _plan
from pipeline.model.image import Layer
from pipeline.store import Store
from pipeline.store.tree_seals import content_digest, hash_tree_files, write_seal
from tests.support.layered_packages import BELOW, DROPPED, FIRST, LARGE, SECOND, TIME, Packages, copied, made
from tests.support.trees import merged, read_tree


def mounted(store: Store, layer: Layer) -> int:
    """How many folders are mounted for the layer."""
    return len(lower_folders([layer], store=store))


def assert_shows(store: Store, layer: Layer, elsewhere: Path) -> None:
    """That the folders, mounted, show what the layer's blob has, in a store that knows nothing else."""
    other = copied(store, layer, elsewhere)
    shown = merged(lower_folders([layer], store=store))
    assert shown == read_tree(unpack_to_store(layer, store=other))


def test_a_changed_layer_is_written_over_the_tree_of_the_earlier_one(
    store: Store, packages: Packages, tmp_path: Path
) -> None:
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    packages.read.clear()
    second = made(store, packages.layer(TIME + 9, large=LARGE, tool=SECOND))
    assert len(packages.read) == 1
    below, above = lower_folders([second], store=store)
    assert below == unpack_to_store(first, store=store)
    assert {path.name for path in above.rglob("*") if path.is_file()} == {"tool", "back", "new", "turns"}
    assert_shows(store, second, tmp_path / "other")
    assert_shows(store, first, tmp_path / "another")


def test_the_bytes_do_not_depend_on_the_earlier_tree(store: Store, packages: Packages, tmp_path: Path) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    changed = packages.layer(large=LARGE, tool=SECOND)
    other = Store.open(tmp_path / "other")
    for part in changed.parts:
        with store.reading(part.checksum) as file:
            other.put(file.read())
    assert made(store, changed) == made(other, changed)
    assert (mounted(store, made(store, changed)), mounted(other, made(other, changed))) == (2, 1)


def test_a_second_change_is_written_over_the_whole_tree_too(store: Store, packages: Packages, tmp_path: Path) -> None:
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    made(store, packages.layer(large=LARGE, tool=SECOND))
    third = made(store, packages.layer(large=LARGE, tool={**SECOND, "usr/tool": b"three"}))
    below, _ = lower_folders([third], store=store)
    assert below == unpack_to_store(first, store=store)
    assert_shows(store, third, tmp_path / "other")


def test_a_layer_of_which_most_changed_gets_a_whole_tree_and_is_the_next_ones_earlier_one(
    store: Store, packages: Packages, tmp_path: Path
) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    bigger = packages.layer(large={"usr/large": b"LARGE" * 1000}, tool=FIRST)
    whole = made(store, bigger)
    assert mounted(store, whole) == 1
    third = made(store, packages.layer(large={"usr/large": b"LARGE" * 1000}, tool=SECOND))
    assert lower_folders([third], store=store)[0] == unpack_to_store(whole, store=store)
    assert_shows(store, third, tmp_path / "other")


def test_packages_of_other_names_have_no_earlier_tree(store: Store, packages: Packages) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    assert mounted(store, made(store, packages.layer(large=LARGE, other=SECOND))) == 1


@pytest.mark.parametrize("changed", ["content", "mode", "more"])
def test_an_earlier_tree_that_was_changed_is_not_written_over(
    store: Store, packages: Packages, tmp_path: Path, changed: str
) -> None:
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    root = unpack_to_store(first, store=store)
    if changed == "content":
        (root / "usr/large").write_bytes(b"LARGE" * 1000)
    elif changed == "mode":
        (root / "usr/large").chmod(0o4755)
    else:
        (root / "usr/more").touch()
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    assert mounted(store, second) == 1
    assert_shows(store, second, tmp_path / "other")


@pytest.mark.parametrize("changed", ["upper", "lower", "lower removed"])
def test_what_was_changed_or_pruned_afterwards_is_not_mounted(
    store: Store, packages: Packages, tmp_path: Path, changed: str
) -> None:
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    lower, upper = lower_folders([second], store=store)
    if changed == "lower removed":
        store.trees.path(first.diff_id).rename(tmp_path / "collected")
    else:
        (upper / "usr/tool" if changed == "upper" else lower / "usr/large").write_bytes(b"forged")
    assert mounted(store, second) == 1
    assert_shows(store, second, tmp_path / "other")


def test_a_tree_over_one_that_is_not_whole_is_not_mounted(store: Store, packages: Packages) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    with store.temporary("other") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        store.trees.keep(folder / "tree", DiffId.of(b"third"), over=second.diff_id)
    assert store.trees.kept_stack(DiffId.of(b"third")) is None


def test_a_record_that_this_store_did_not_seal_is_not_followed(store: Store, packages: Packages) -> None:
    plain = packages.layer(large=LARGE, tool=FIRST)
    made(store, plain)
    record = store.result(earlier_tree._identity(plain, Compression.GZIP))
    framed = record.read_bytes()
    record.write_bytes(framed[:-2] + b" " + framed[-2:])
    assert mounted(store, made(store, packages.layer(large=LARGE, tool=SECOND))) == 1


def test_an_order_that_does_not_have_every_entry_once_is_not_followed(store: Store, packages: Packages) -> None:
    plain = packages.layer(large=LARGE, tool=FIRST)
    first = made(store, plain)
    parts = _plan(plain, Compression.GZIP).segments
    wrong = [(0,) * len(part.entries) for part, _ in parts]
    remember_tree(plain, parts, wrong, diff_id=first.diff_id, compression=Compression.GZIP, store=store)
    assert mounted(store, made(store, packages.layer(large=LARGE, tool=SECOND))) == 1


def test_a_segment_that_was_damaged_is_made_again_into_the_new_tree(
    store: Store, packages: Packages, tmp_path: Path
) -> None:
    plain = packages.layer(large=LARGE, more={"usr/more": b"more" * 2000}, tool=FIRST)
    made(store, plain)
    name = segments.segment_identity(plain.parts[0], Compression.GZIP)
    segment = segments.recall_segment(name, store)
    assert segment is not None
    store.blob(segment.digest).write_bytes(b"damaged")
    packages.read.clear()
    second = made(store, packages.layer(large=LARGE, more={"usr/more": b"more" * 2000}, tool=SECOND))
    assert len(packages.read) == 2
    assert_shows(store, second, tmp_path / "other")


def test_an_image_of_many_layers_is_mounted_from_whole_trees(
    store: Store, packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    monkeypatch.setattr(unpack_layer, "LAYERS_IN_TWO", 0)
    assert mounted(store, second) == 1
    assert_shows(store, second, tmp_path / "other")
    assert len(lower_folders([second], store=store)) == 1


@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize("dropped", DROPPED)
def test_a_layer_that_lacks_what_the_earlier_one_has_is_written_whole(
    store: Store, packages: Packages, tmp_path: Path, dropped: str, below: str
) -> None:
    base = made(store, replace(packages.layer(moved=BELOW[below]), name="below"))
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(TIME + 9, large=LARGE, tool=DROPPED[dropped]))
    assert mounted(store, second) == 1
    whole = [unpack_to_store(one, store=copied(store, one, tmp_path / one.name)) for one in (base, second)]
    assert merged(lower_folders([base, second], store=store)) == merged(whole)


FILES = st.dictionaries(
    st.text("ab/", min_size=1, max_size=5).filter(lambda path: "" not in path.split("/")),
    st.sampled_from([b"one", b"two", "link", None]),
    max_size=6,
)


def under_usr(files: dict[str, bytes | str | None]) -> dict[str, bytes | str | None]:
    """The files with their directories, none below a path that is another thing."""
    found: dict[str, bytes | str | None] = {}
    for path, value in sorted(files.items()):
        names = path.split("/")
        parents = ["/".join(("usr", *names[:depth])) for depth in range(1, len(names))]
        if all(found.get(parent) is None for parent in parents):
            found |= {**dict.fromkeys(parents), f"usr/{path}": value}
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(below=FILES, before=FILES, added=FILES, dropped=st.booleans())
def test_whatever_changes_the_trees_show_what_the_blobs_have(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    below: dict[str, bytes | str | None],
    before: dict[str, bytes | str | None],
    added: dict[str, bytes | str | None],
    dropped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("law")
    store = Store.open(folder / "store")
    packages = Packages(store, monkeypatch)
    base = made(store, replace(packages.layer(below=under_usr(below)), name="below"))
    made(store, packages.layer(large=LARGE, tool=under_usr(before)))
    after = under_usr(added if dropped else before | added)
    layer = made(store, packages.layer(TIME + 9, large=LARGE, tool=after))
    whole = [unpack_to_store(one, store=copied(store, one, folder / one.name)) for one in (base, layer)]
    assert merged(lower_folders([base, layer], store=store)) == merged(whole)


def test_the_whole_tree_is_made_beside_one_that_somebody_has_mounted(store: Store, packages: Packages) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    _, upper = lower_folders([second], store=store)
    whole = unpack_to_store(second, store=store)
    assert whole != upper
    assert store.trees.holds(upper.parent, reading=True) and store.trees.holds(whole.parent, reading=True)
    assert lower_folders([second], store=store) == (whole,)


def test_a_tree_over_another_never_counts_as_a_whole_one(store: Store, packages: Packages, tmp_path: Path) -> None:
    """Under the name of a whole one it has its layer's seal only if this store has made it so."""
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    with store.temporary("other") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        sealer = store.trees.sealers.made("tree")
        other = Digest.of(b"other").hex
        write_seal(folder / "tree", other, content_digest({}), sealer, over=first.diff_id.hex)
        (folder / "tree").rename(store.trees.path(other))
    assert store.trees.kept(other) is None and not store.trees.path(other).exists()


def test_a_tree_over_itself_is_missing(store: Store) -> None:
    name = DiffId.of(b"itself")
    with store.temporary("other") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        store.trees.keep(folder / "tree", name, over=name)
    with store.locked(f"tree-{name.hex}"):
        assert store.trees.kept_stack(name) is None


def test_layers_of_an_image_of_many_are_written_whole(store: Store, packages: Packages) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = packages.layer(large=LARGE, tool=SECOND)
    (built,) = build_layers(
        [second], store=store, compression=Compression.GZIP, unpack=True, others=unpack_layer.LAYERS_IN_TWO
    )
    assert store.trees.kept(built.layer.diff_id) is not None


def test_an_earlier_tree_that_the_disk_has_changed_is_removed_and_nothing_else(
    store: Store, packages: Packages, tmp_path: Path
) -> None:
    first = made(store, packages.layer(large=LARGE, tool=FIRST))
    root = unpack_to_store(first, store=store)
    content = hash_tree_files(root)
    (root / "usr/large").write_bytes(b"LARGE" * 1000)
    # As if under the metadata: the seal has the new times and the content of before.
    write_seal(root.parent, root.parent.name, content_digest(content), store.trees.sealers.made("tree"))
    changed = packages.layer(large=LARGE, tool=SECOND)
    with pytest.raises(VerificationError, match="tree of an earlier one") as caught:
        made(store, changed)
    assert caught.value.code == "diff-id-mismatch" and "fsck" in str(caught.value.problems[0].hint)
    assert not root.exists() and list((store.root / "quarantine").iterdir()) == []
    packages.read.clear()
    second = made(store, changed)
    assert len(packages.read) == 1, "that which changed: its segment was not compared with its tree yet"
    assert_shows(store, second, tmp_path / "other")


def test_a_tree_over_another_is_checked_with_the_store(store: Store, packages: Packages) -> None:
    made(store, packages.layer(large=LARGE, tool=FIRST))
    second = made(store, packages.layer(large=LARGE, tool=SECOND))
    _, upper = lower_folders([second], store=store)
    assert store.trees.holds(upper.parent, reading=True)
    assert not store.trees.holds(upper.parent.rename(upper.parent.with_name("0" * 64)), reading=True)


def test_hard_links_and_directories_keep_their_attributes(store: Store, packages: Packages, tmp_path: Path) -> None:
    plain = packages.layer(large=LARGE, tool=FIRST)
    made(store, plain)
    changed = packages.layer(TIME + 60, large=LARGE, tool=SECOND)
    closed = tuple(replace(one, mode=0o700) for one in changed.directories)
    second = made(store, replace(changed, directories=closed))
    assert mounted(store, second) == 2
    assert_shows(store, second, tmp_path / "other")
