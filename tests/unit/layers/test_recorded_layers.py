"""Layers unpacked with a table of owners, and the layer of what was changed there since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import BuildError, VerificationError
from pipeline.layers.pack_layer import pack_entries
from pipeline.layers.state_session import StateSession, open_state_session
from pipeline.layers.unpack_layer import layer_entries, layer_members
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.trees import apply_layer_entries

FILE, FOLDER, LINK = EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.HARDLINK
TIME = 1_700_000_000

LOWER = (
    (Entry("etc", FOLDER, 0o755, mtime=5), b""),
    (Entry("etc/a", FILE, 0o4750, 27, 28, mtime=5, size=1, xattrs=(("user.x", b"y"),)), b"a"),
    (Entry("etc/b", FILE, 0o000, 1, 2, mtime=5, size=2), b"bb"),
    (Entry("etc/hard", LINK, 0o000, 1, 2, mtime=5, link="etc/b"), b""),
    (Entry("etc/link", EntryKind.SYMLINK, 0o777, 3, 4, mtime=5, link="a"), b""),
    (Entry("srv", FOLDER, 0o2770, 9, 9, mtime=5), b""),
    (Entry("srv/old", FILE, 0o644, mtime=5, size=3), b"old"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def packed(store: Store, *entries: tuple[Entry, bytes]) -> Layer:
    return pack_entries(entries, name="lower", store=store, compression=Compression.GZIP)


def changes(store: Store, folder: Path, change: Callable[[StateSession], None]) -> dict[str, Entry]:
    """The entries of the layer that `change` makes on LOWER."""
    lower = packed(store, *LOWER)
    tree = with_contents(store, lower)
    folder.mkdir()
    with open_state_session([lower], tree, folder, prepared=None, store=store, progress=QUIET) as state:
        change(state)
        layer = state.pack(tree, build_time=TIME, store=store, compression=Compression.GZIP)
    return {entry.path: entry for entry in layer_entries(layer, store=store)}


def with_contents(store: Store, layer: Layer) -> Tree:
    """The tree of a layer, as it is composed: with digests."""
    found = {}
    for member in layer_members(layer, store=store):
        entry = member.entry
        data = b"".join(bytes(piece) for piece in member.pieces()) if entry.kind is FILE else b""
        found[entry.path] = replace(entry, content=Digest.of(data)) if entry.kind is FILE else entry
    return apply_layer_entries(Tree.of({}), found.values())


def nothing(_: StateSession) -> None:
    pass


def test_what_is_not_changed_makes_no_entry(store: Store, tmp_path: Path) -> None:
    assert not changes(store, tmp_path / "work", nothing)


def test_owners_modes_and_attributes_are_those_of_the_table(store: Store, tmp_path: Path) -> None:
    def look(state: StateSession) -> None:
        found = state.session.files.stat("etc/a")
        assert found and (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o4750, 27, 28)
        state.session.files.write_file("etc/new", b"new", mode=0o600, uid=77, mtime=5)
        state.session.files.make_directory("srv", mode=0o2770, uid=8, gid=9)

    made = changes(store, tmp_path / "work", look)
    assert {path: (e.mode, e.uid, e.gid, e.mtime) for path, e in made.items() if path} == {
        "etc": (0o755, 0, 0, TIME),
        "etc/new": (0o600, 77, 0, TIME),
        "srv": (0o2770, 8, 9, TIME),
    }


def test_a_file_written_again_with_the_same_content_is_no_change(store: Store, tmp_path: Path) -> None:
    same = changes(
        store,
        tmp_path / "work",
        lambda state: state.session.files.write_file("srv/old", b"old", mode=0o644, mtime=9),
    )
    assert not same


def test_one_of_two_names_is_changed_and_the_other_is_not(store: Store, tmp_path: Path) -> None:
    made = changes(
        store, tmp_path / "work", lambda state: state.session.files.write_file("etc/hard", b"x", mode=0, uid=1, gid=2)
    )
    assert [path for path in made if path not in ("", "etc")] == ["etc/hard"] and made["etc/hard"].kind is FILE


def test_what_was_removed_is_a_whiteout_of_its_topmost_directory(store: Store, tmp_path: Path) -> None:
    def remove(state: StateSession) -> None:
        assert state.session.files.remove("srv") and state.session.files.remove("etc/link")
        assert ("srv", (0,)) in list(state.stamps())

    made = changes(store, tmp_path / "work", remove)
    assert {path for path, e in made.items() if e.kind is EntryKind.WHITEOUT} == {"srv", "etc/link"}


def test_what_is_discarded_is_as_in_the_layers_unless_it_is_written_again(store: Store, tmp_path: Path) -> None:
    def clean(state: StateSession) -> None:
        files = state.session.files
        for path in ("etc/a", "etc/b", "etc/extra"):
            files.write_file(path, b"changed", mode=0o644)
        files.remove("srv")
        state.discard("etc", "*")
        state.discard("", "srv")
        files.write_file("etc/b", b"again", mode=0o644)

    made = changes(store, tmp_path / "work", clean)
    assert {path for path in made if path not in ("", "etc")} == {"etc/b"}


def test_what_is_new_in_a_discarded_directory_is_not_packed(store: Store, tmp_path: Path) -> None:
    def clean(state: StateSession) -> None:
        files = state.session.files
        for path in ("srv/new", "srv/folder"):
            files.make_directory(path)
        for path in ("srv/new/x", "srv/folder/x", "srv/file"):
            files.write_file(path, b"left", mode=0o644)
        state.discard("", "srv")
        files.make_directory("srv/folder/again")
        files.write_file("srv/folder/again/y", b"again", mode=0o644)

    made = changes(store, tmp_path / "work", clean)
    assert sorted(path for path in made if path not in ("", "srv")) == [
        "srv/folder", "srv/folder/again", "srv/folder/again/y",
    ]  # fmt: skip


def test_logs_are_emptied_among_what_was_changed(store: Store, tmp_path: Path) -> None:
    def log(state: StateSession) -> None:
        state.session.files.make_directory("etc/log")
        for name in ("x", "kept"):
            state.session.files.write_file(f"etc/log/{name}", b"said", mode=0o600)
        state.empty_files("etc/log", lambda path: not path.endswith("kept"))

    made = changes(store, tmp_path / "work", log)
    assert (made["etc/log/x"].size, made["etc/log/kept"].size) == (0, 4)


def test_no_symlink_of_the_image_leads_the_cleaning_to_files_of_the_machine(store: Store, tmp_path: Path) -> None:
    outside = machine_files(tmp_path)

    def clean(state: StateSession) -> None:
        files = state.session.files
        files.make_directory("var/log/inner")
        files.make_directory("var/cache/ldconfig")
        for path in outside:
            files.write_file(f"var/{path}", b"the image's", mode=0o600)
        for path in ("var/log/inner", "var/log", "var/cache"):
            files.remove(path)
            files.symlink(path, f"{tmp_path}/machine/{path.removeprefix('var/')}")
            state.empty_files("var/log", lambda _: True)
            state.discard("var/cache/ldconfig", "aux-cache")
            assert not [one for one, _ in state.stamps() if one.startswith(f"{path}/")]
        files.remove("var")
        files.symlink("var", f"{tmp_path}/machine")
        state.empty_files("var/log", lambda _: True)
        state.discard("var/cache/ldconfig", "aux-cache")
        state.discard("var/log", "*")

    changes(store, tmp_path / "work", clean)
    assert all((tmp_path / "machine" / path).read_bytes() == b"the machine's" for path in outside)


def machine_files(folder: Path) -> list[str]:
    """Make files that an image's symlinks may lead to, below `machine`; return their paths there."""
    paths = ["log/x", "log/inner/y", "cache/ldconfig/aux-cache"]
    for path in paths:
        place = folder / "machine" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"the machine's")
    return paths


def test_layers_hide_what_is_below_them(store: Store, tmp_path: Path) -> None:
    lower = packed(store, *LOWER)
    upper = packed(
        store,
        (Entry("etc", FOLDER, 0o700), b""),
        (Entry("etc/a", FOLDER, 0o755), b""),
        (Entry("etc/b", EntryKind.WHITEOUT), b""),
        (Entry("srv", FILE, 0o644, size=1), b"s"),
    )
    tree = Tree.of({})
    (tmp_path / "work").mkdir()
    session = open_state_session([lower, upper], tree, tmp_path / "work", prepared=None, store=store, progress=QUIET)
    with session as state:
        root = tmp_path / "work/tree"
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
            "etc", "etc/a", "etc/hard", "etc/link", "srv",
        ]  # fmt: skip
        found = state.session.files.stat("etc")
        assert found and found.st_mode & 0o7777 == 0o700


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        (((Entry("dev", EntryKind.CHARACTER, device=(1, 3)), b""),), BuildError),
        (((Entry("a", LINK, link="b"), b""),), VerificationError),
    ],
)
def test_layers_that_are_refused(
    store: Store, tmp_path: Path, entries: tuple[tuple[Entry, bytes], ...], error: type[Exception]
) -> None:
    (tmp_path / "work").mkdir()
    opened = open_state_session(
        [packed(store, *entries)], Tree.of({}), tmp_path / "work", prepared=None, store=store, progress=QUIET
    )
    with pytest.raises(error), opened:
        pass
