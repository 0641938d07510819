"""Of two trees of a layer the first stays; one that others made, or that was changed, does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.store import Store


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
