"""Of two trees of a layer the first stays; one that others made, or that was changed, does not count."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.beneath import logged_reads
from pipeline.digest import DiffId, Digest
from pipeline.store import Store, check_store, collect_garbage
from pipeline.store.tree_seals import tree_metadata_digest


def test_the_first_of_two_unpacked_trees_stays(store: Store) -> None:
    diff_id = DiffId.of(b"tar")
    for content in ("first", "second"):
        with store.temporary("tree") as folder:
            (folder / "made" / "root").mkdir(parents=True)
            (folder / "made" / "root" / "file").write_text(content)
            store.trees.keep(folder / "made", diff_id)
    assert (store.trees.path(diff_id) / "root" / "file").read_text() == "first"


def keep(store: Store, content: str = "of the layer") -> Path:
    with store.temporary("tree") as folder:
        (folder / "tree" / "root" / "bin").mkdir(parents=True)
        (folder / "tree" / "root" / "bin" / "sh").write_text(content)
        return store.trees.keep(folder / "tree", DiffId.of(b"tar"))


def test_a_tree_that_others_made_does_not_count(tmp_path: Path) -> None:
    """Its seal is good for its inodes and times, as whoever has the folder can make it, and is not the store's own."""
    notes: list[str] = []
    store, other = Store.open(tmp_path / "store", tell=notes.append), Store.open(tmp_path / "other")
    keep(other, "planted").rename(store.trees.path(DiffId.of(b"tar")))
    store.remember(Digest.of(b"step"), 1)
    assert store.trees.kept(DiffId.of(b"tar")) is None
    assert not store.trees.path(DiffId.of(b"tar")).exists() and "unpacked again" in notes[0]


def test_a_tree_of_one_layer_does_not_count_for_another(store: Store) -> None:
    keep(store).rename(store.trees.path(DiffId.of(b"another")))
    assert store.trees.kept(DiffId.of(b"another")) is None


def test_a_tree_made_before_the_machine_started_anew_is_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree is not synced: of what was written last a power cut may leave names and sizes without the bytes."""
    boots = ["before"]
    monkeypatch.setattr("pipeline.store.tree_seals._boot", lambda: boots[0])
    looks = ["same"]
    monkeypatch.setattr("pipeline.store.tree_seals.tree_metadata_digest", lambda root: looks[0])
    folder = keep(store)
    file = folder / "root" / "bin" / "sh"
    good = file.read_text()
    file.write_text("\0" * len(good))
    assert store.trees.kept(DiffId.of(b"tar")) is not None, "in the same boot a look is enough"
    boots[0] = "after"
    assert store.trees.kept(DiffId.of(b"tar")) is None
    keep(store)
    boots[0] = "again"
    assert store.trees.kept(DiffId.of(b"tar")) is not None
    (store.trees.path(DiffId.of(b"tar")) / "root" / "bin" / "sh").write_text("\0" * len(good))
    boots[0] = "and again"
    assert store.trees.kept(DiffId.of(b"tar")) is not None, "it was read from the disk in between"


# --- damage ------------------------------------------------------------------------------------------------

LAYER, UPPER = DiffId.of(b"tar"), DiffId.of(b"upper")


def corrupt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a file as a disk does, which leaves the metadata."""
    look = tree_metadata_digest(folder / "root")
    file = folder / "root" / "bin" / "sh"
    file.write_bytes(b"\0" * file.stat().st_size)
    real = tree_metadata_digest
    monkeypatch.setattr(
        "pipeline.store.tree_seals.tree_metadata_digest",
        lambda root: look if root == folder / "root" else real(root),
    )


@pytest.mark.parametrize("finds", ["the packing", "fsck"])
def test_damage_is_noted_for_the_layer_each_time(store: Store, monkeypatch: pytest.MonkeyPatch, finds: str) -> None:
    assert store.trees.damages(LAYER) == 0
    for number in (1, 2):
        with monkeypatch.context() as disk:
            corrupt(keep(store), disk)
            assert store.trees.kept(LAYER) is not None, "nobody has read it"
            if finds == "the packing":
                assert not store.trees.reads_back(LAYER)
            else:
                assert [one.kind for one in check_store(store).damaged] == ["tree"]
        assert store.trees.damages(LAYER) == number
    assert store.trees.damages(UPPER) == 0


def test_damage_is_noted_for_layers_whose_trees_are_mounted_over_the_damaged_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep(store)
    with store.temporary("tree") as made:
        (made / "tree" / "root").mkdir(parents=True)
        store.trees.keep(made / "tree", UPPER, over=LAYER)
    corrupt(folder, monkeypatch)
    assert store.trees.reads_back(f"{UPPER.hex}-over") and store.trees.damages(UPPER) == 0
    assert not store.trees.reads_back(LAYER)
    assert (store.trees.damages(LAYER), store.trees.damages(UPPER)) == (1, 1)


def test_a_store_that_was_copied_has_no_damage(store: Store) -> None:
    """Its trees have other inodes and times, and are unpacked again; what was made on them is as good as before."""
    folder = keep(store)
    (folder / "root" / "bin" / "sh").rename(folder / "sh")
    shutil.copy2(folder / "sh", folder / "root" / "bin" / "sh")
    (folder / "sh").unlink()
    assert not store.trees.holds(folder, reading=True)
    assert store.trees.kept(LAYER) is None and store.trees.damages(LAYER) == 0


def test_a_log_of_reads_has_the_place_of_the_next_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a build that is recognised when nothing changed is done again."""
    with logged_reads() as log:
        store.trees.damages(LAYER)
    ((place, kinds),) = log.looked.items()
    assert kinds == {0} and not Path(place).exists()
    corrupt(keep(store), monkeypatch)
    assert not store.trees.reads_back(LAYER)
    assert Path(place).is_file()


def test_a_note_of_damage_that_was_looked_at_is_not_collected(store: Store) -> None:
    """Else what was made on the damaged tree would count again."""
    for layer in (LAYER, UPPER):
        store.trees._note_damage(layer.hex)
    for note in (store.root / "results").glob("*/*"):
        os.utime(note, (1, 1))
    assert store.trees.damages(LAYER) == 1
    collect_garbage(store, time.time() - 100)
    assert (store.trees.damages(LAYER), store.trees.damages(UPPER)) == (1, 0)
