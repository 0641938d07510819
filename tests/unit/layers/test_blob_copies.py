"""Copies that are made of blobs as they are read back: none of another blob, and none before its layer counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.errors import VerificationError
from pipeline.layers import lower_folders
from pipeline.store import BlobWriter, Store, UnnamedCopies
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages, made
from tests.support.packing_steps import before, building, drafts, held, wait_for

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("compression", list(Compression))
def test_a_blob_that_was_read_back_has_a_copy(
    store: Store, three: ComposedLayer, packages: Packages, output: Path, compression: Compression
) -> None:
    other = packages.layer(other={"usr/other": b"other" * 9000})
    with store.copies_for(output) as copies:
        with building(store, three, other, compression=compression, copies=copies) as layers:
            pass
        assert list(output.iterdir()) == []
        for layer in layers:
            blob = layer.layer.blob
            place, kept = output / blob.digest.hex, store.blob(blob.digest)
            assert copies.name(blob.digest, blob.size, place)
            assert place.read_bytes() == kept.read_bytes() and place.stat().st_ino != kept.stat().st_ino
        with building(store, three, compression=compression, copies=copies) as (again,):
            assert again.reused
        assert not copies.name(blob.digest, blob.size, output / "again"), "nobody has read it"


def test_a_copy_counts_after_its_layer(
    store: Store, three: ComposedLayer, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails until a layer is remembered: its copy is none of a layer."""
    told: list[str] = []
    confirm, note = UnnamedCopies.confirm, BlobWriter.identify
    monkeypatch.setattr(UnnamedCopies, "confirm", lambda *given: (told.append("copy"), confirm(*given))[1])
    monkeypatch.setattr(BlobWriter, "identify", lambda *given, **more: (told.append("blob"), note(*given, **more))[1])

    def remember(*_: object) -> None:
        told.append("layer")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.layers.layer._remember", remember)
    with store.copies_for(output) as copies:
        with pytest.raises(OSError, match="No space"), building(store, three, copies=copies):
            pass
        assert told == ["blob", "layer"] and not copies._confirmed
    assert list(output.iterdir()) == []


def _in_tree(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    go = held(monkeypatch, "compress")

    def change(one: object) -> None:
        (folder,) = lower_folders([one], store=store)  # type: ignore[list-item]
        with (folder / "usr/b").open("r+b") as file:
            file.write(b"x")
        go.set()

    return change


def _in_blob(_: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    finished, finish = held(monkeypatch, "read_back"), BlobWriter.finish

    def change(self: BlobWriter) -> None:
        with self._path.open("r+b") as file:
            file.seek(9)  # The operating system, in the header of gzip's first member: it decompresses to the same.
            file.write(b"\x03")
        finished.set()
        finish(self)

    monkeypatch.setattr(BlobWriter, "finish", change)
    return lambda _: None


@pytest.mark.parametrize("damage", [_in_tree, _in_blob])
def test_damage_that_is_found_after_the_copy_began_leaves_none(
    store: Store,
    three: ComposedLayer,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Store, pytest.MonkeyPatch], Callable[[object], None]],
) -> None:
    with monkeypatch.context() as damaging, store.copies_for(output) as copies:
        change = damage(store, damaging)
        with pytest.raises(VerificationError), building(store, three, copies=copies) as (one,):
            change(one)
        assert [copy._size > 0 for copy in copies._begun] == [True], "it had begun"
        assert not copies._confirmed
    assert list(output.iterdir()) == [] and drafts(store) == []
    assert made(store, three)


def test_a_packing_that_nobody_waits_for_leaves_no_copy(
    store: Store, three: ComposedLayer, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, "compress", lambda layer, _: wait_for(layer.abandoned))
    with store.copies_for(output) as copies:
        with pytest.raises(KeyboardInterrupt), building(store, three, copies=copies):
            raise KeyboardInterrupt
        assert len(copies._begun) == 1 and not copies._confirmed
    assert list(output.iterdir()) == []


def test_without_trees_no_copy_is_begun(store: Store, three: ComposedLayer, output: Path) -> None:
    with store.copies_for(output) as copies:
        with building(store, three, unpack=False, copies=copies):
            pass
        assert not copies._begun


def test_the_copys_room_is_that_of_all_content(
    store: Store, three: ComposedLayer, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(UnnamedCopies, "begin", lambda _, room: asked.append(room))
    with store.copies_for(output) as copies, building(store, three, copies=copies):
        pass
    assert asked == [sum(entry.size for part in three.parts for _, entry in part.entries)] and asked[0] > 1000


def test_copies_are_begun_as_blobs_are_read_back_and_not_with_the_layers(
    store: Store, three: ComposedLayer, packages: Packages, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "read_back")
    others = [packages.layer(**{f"n{at}": {f"usr/n{at}": bytes([at]) * 5000}}) for at in range(4)]
    with store.copies_for(output) as copies:
        with building(store, three, *others, copies=copies):
            assert not copies._begun
            go.set()
        assert len(copies._begun) == 5
