"""Layouts of images: written beside the former one, put in place whole, and read back."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import clone
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import STORE_DAMAGE_HINT, UsageError, VerificationError
from pipeline.model.image import Image
from pipeline.oci import blob_path, make_image, read_layout, validate_layout, write_layout, writing_layout
from pipeline.oci import image_layout as layout_module
from pipeline.store import Store, UnnamedCopies
from tests.support.patience import HUNG
from tests.support.tiny_image import CONFIG, fake_layer, layer, tiny


def state(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(path)): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in path.rglob("*")}


def _other(store: Store) -> Image:
    return make_image("tiny", "2.0", CONFIG, [layer(store, "only", {"x": b"y"})])


@pytest.mark.parametrize("compression", list(Compression))
def test_what_is_written_is_sound_and_reads_back(store: Store, tmp_path: Path, compression: Compression) -> None:
    image = tiny(store, compression)
    write_layout(image, store=store, target=tmp_path / "out")
    assert validate_layout(tmp_path / "out") == ()
    assert read_layout(tmp_path / "out") == image


def test_a_byte_written_into_a_layout_is_not_one_of_the_stores(store: Store, layout: Path) -> None:
    digest = tiny(store).layers[0].blob.digest
    assert not blob_path(layout, digest).samefile(store.blob(digest))
    blob_path(layout, digest).write_bytes(b"edited")
    assert store.sound(digest)
    write_layout(tiny(store), store=store, target=layout)
    assert validate_layout(layout) == ()


def test_a_layer_that_an_older_relbuild_linked_is_made_the_layouts_own(store: Store, layout: Path) -> None:
    digest = tiny(store).layers[0].blob.digest
    blob_path(layout, digest).unlink()
    blob_path(layout, digest).hardlink_to(store.blob(digest))
    write_layout(tiny(store), store=store, target=layout)
    assert not blob_path(layout, digest).samefile(store.blob(digest))
    assert validate_layout(layout) == ()


def test_layers_of_an_unchanged_image_are_not_read_again(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path, digest: Digest) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(layout_module, "stamp_of_whole", never)
    write_layout(tiny(store), store=store, target=layout)


def test_the_same_image_is_not_touched(store: Store, layout: Path) -> None:
    before = state(layout)
    write_layout(tiny(store), store=store, target=layout)
    assert state(layout) == before


def test_another_image_replaces_it_whole(store: Store, layout: Path) -> None:
    other = make_image("tiny", "2.0", CONFIG, [layer(store, "only", {"x": b"y"})])
    write_layout(other, store=store, target=layout)
    assert validate_layout(layout) == ()
    assert read_layout(layout) == other
    assert [path.name for path in layout.parent.iterdir()] == ["tiny"]


def test_layers_that_stay_keep_their_files_and_are_not_read_again(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tiny(store)
    base = image.layers[0]
    before = blob_path(layout, base.blob.digest).stat().st_ino
    other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])

    def never(path: Path, digest: Digest) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(layout_module, "stamp_of_whole", never)
    for _ in range(2):
        write_layout(other, store=store, target=layout)
        kept = blob_path(layout, base.blob.digest)
        assert (kept.stat().st_ino, kept.stat().st_nlink) == (before, 1)
        assert not kept.samefile(store.blob(base.blob.digest))
    assert validate_layout(layout) == ()
    assert read_layout(layout).layers[0].diff_id == base.diff_id


def test_the_file_of_a_layer_that_stays_is_not_kept_when_it_was_edited(store: Store, layout: Path) -> None:
    base = tiny(store).layers[0]
    edited = blob_path(layout, base.blob.digest)
    data = bytearray(edited.read_bytes())
    data[-1] ^= 1
    edited.write_bytes(data)
    inode = edited.stat().st_ino
    other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
    write_layout(other, store=store, target=layout)
    assert edited.stat().st_ino != inode
    assert validate_layout(layout) == ()


def test_the_file_of_a_layer_that_stays_is_not_kept_where_a_copy_of_the_layout_shares_it(
    store: Store, layout: Path, tmp_path: Path
) -> None:
    base = tiny(store).layers[0]
    shared = blob_path(layout, base.blob.digest)
    (tmp_path / "copy").hardlink_to(shared)
    write_layout(tiny(store), store=store, target=layout)  # Records the file as it is now, with both names.
    other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
    write_layout(other, store=store, target=layout)
    assert not (tmp_path / "copy").samefile(blob_path(layout, base.blob.digest))
    assert validate_layout(layout) == ()


def test_layers_that_stay_are_copied_where_files_cannot_be_linked(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(layout_module.os, "link", refused)
    base = tiny(store).layers[0]
    write_layout(make_image("tiny", "2.0", CONFIG, [base]), store=store, target=layout)
    assert validate_layout(layout) == ()


def test_a_damaged_one_is_put_right(store: Store, layout: Path) -> None:
    image = tiny(store)
    damaged = blob_path(layout, image.layers[1].blob.digest)
    size = damaged.stat().st_size
    damaged.unlink()
    damaged.write_bytes(b"x" * size)
    write_layout(image, store=store, target=layout)
    assert validate_layout(layout) == ()


def test_it_is_written_beside_the_block_and_put_in_place_at_its_end(store: Store, layout: Path) -> None:
    other = _other(store)
    with writing_layout(other, store=store, target=layout):
        assert read_layout(layout) != other
    assert read_layout(layout) == other and not validate_layout(layout)
    with writing_layout(other, store=store, target=layout):
        pass
    assert [path.name for path in layout.parent.iterdir() if path.name.startswith(".")] == []


def test_copies_that_were_made_before_are_named_in_the_draft(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not as long as its blob is copied from the store."""
    layers = [layer(store, "only", {"x": b"y"}), layer(store, "more", {"x": b"z" * 3000})]
    other, read = make_image("tiny", "2.0", CONFIG, layers), read_layout(layout)
    first, second = other.layers
    real, copied, links = layout_module._copy, list[Digest](), list[str]()
    name = UnnamedCopies.name

    def copy(given: Store, digest: Digest, *more: Any) -> None:
        copied.append(digest)
        real(given, digest, *more)

    def named(copies: UnnamedCopies, digest: Digest, size: int, place: Path) -> bool:
        links.append(place.parent.parent.parent.name.partition("-")[0])
        return name(copies, digest, size, place)

    monkeypatch.setattr(layout_module, "_copy", copy)
    monkeypatch.setattr(UnnamedCopies, "name", named)
    with store.copies_for(layout.parent) as copies:
        for one in other.layers:
            made = copies.begin(one.blob.size)
            assert made is not None
            data = store.blob(one.blob.digest).read_bytes()[: None if one is first else -1]
            os.write(made._handle, data)
            made._size = len(data)
            copies.confirm(one.blob.digest, made)
        with writing_layout(other, store=store, target=layout, copies=copies):
            assert read_layout(layout) == read
    assert read_layout(layout) == other and validate_layout(layout) == ()
    assert copied == [second.blob.digest]
    assert set(links) == {".tiny.draft"}, "nothing is seen in the layout's place before all of it is there"
    assert blob_path(layout, first.blob.digest).stat().st_nlink == 1
    monkeypatch.setattr(layout_module, "stamp_of_whole", _other)
    write_layout(other, store=store, target=layout)


def test_the_file_of_a_layer_that_stays_is_kept_where_there_is_a_copy_too(store: Store, layout: Path) -> None:
    """Another build may have put it there when it was copied already."""
    base = tiny(store).layers[0]
    inode = blob_path(layout, base.blob.digest).stat().st_ino
    other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
    with store.copies_for(layout.parent) as copies:
        made = copies.begin(base.blob.size)
        assert made is not None
        made._write(memoryview(store.blob(base.blob.digest).read_bytes()))
        copies.confirm(base.blob.digest, made)
        with writing_layout(other, store=store, target=layout, copies=copies):
            pass
        assert not made.closed, "nobody has taken it"
    assert read_layout(layout) == other
    assert blob_path(layout, base.blob.digest).stat().st_ino == inode


@pytest.mark.parametrize("error", [ValueError("its documents"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_former_one(error: BaseException, store: Store, layout: Path) -> None:
    before = read_layout(layout)
    for made in (_other(store), before):
        with pytest.raises(type(error)), writing_layout(made, store=store, target=layout):
            raise error
        assert read_layout(layout) == before and not validate_layout(layout)
    assert [path.name for path in layout.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("way", ["kernel", "by hand"])
def test_an_error_in_the_block_ends_the_copying_within_a_piece(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    other = make_image("tiny", "2.0", CONFIG, [layer(store, "large", {"x": os.urandom(300_000)})])
    name = "copy_file_range" if way == "kernel" else "pread"
    real, begun, copied = getattr(os, name), threading.Event(), []

    def slow(*given: int, **more: int) -> object:
        copied.append(given)
        begun.set()
        time.sleep(0.1)  # The error comes before a hundred of them, on a busy machine too.
        return real(*given, **more)

    def cannot(*_: object, **__: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(clone, "CLONE_PIECE", 1024)
    monkeypatch.setattr(fcntl, "ioctl", cannot)
    monkeypatch.setattr(os, "copy_file_range", cannot)
    monkeypatch.setattr(os, name, slow)
    with pytest.raises(KeyboardInterrupt), writing_layout(other, store=store, target=layout):
        assert begun.wait(HUNG)
        raise KeyboardInterrupt
    assert 1 <= len(copied) < 100, "of 300 pieces"
    assert [path.name for path in layout.parent.iterdir()] == ["tiny"]


def test_an_error_in_the_block_costs_no_copy_of_a_layer_that_stays(
    store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file had another name in the draft meanwhile, so its change time is another."""
    base = tiny(store).layers[0]
    inode = blob_path(layout, base.blob.digest).stat().st_ino
    other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
    real, kept = layout_module._keep, threading.Event()

    def keep(*given: Any) -> bool:
        done = real(*given)
        kept.set()
        return done

    monkeypatch.setattr(layout_module, "_keep", keep)
    with pytest.raises(ValueError, match="its documents"), writing_layout(other, store=store, target=layout):
        assert kept.wait(HUNG)
        raise ValueError("its documents")
    write_layout(other, store=store, target=layout)
    assert blob_path(layout, base.blob.digest).stat().st_ino == inode


def test_what_cannot_be_copied_is_told_when_the_block_has_ended(store: Store, layout: Path) -> None:
    before, other, ended = read_layout(layout), _other(store), False
    store.blob(other.layers[0].blob.digest).unlink()
    with pytest.raises(VerificationError) as caught, writing_layout(other, store=store, target=layout):
        ended = True
    assert ended and caught.value.code == "blob-missing" and read_layout(layout) == before
    assert caught.value.problems[0].hint == STORE_DAMAGE_HINT


def test_a_document_that_a_layout_lacks_is_told_with_the_way_out(layout: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        layout_module.read_blob(layout, Digest.of(b"lost"))
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("blob-missing", layout_module.DAMAGED_LAYOUT)


def test_without_its_layers_nothing_is_written(store: Store, layout: Path, tmp_path: Path) -> None:
    before = state(layout)
    other = make_image("tiny", "2.0", CONFIG, [fake_layer("missing")])
    for target in (layout, tmp_path / "new"):
        with pytest.raises(VerificationError, match="is missing in the store"):
            write_layout(other, store=store, target=target)
    assert state(layout) == before
    assert not (tmp_path / "new").exists()
    assert [path.name for path in layout.parent.iterdir()] == ["tiny"]


def test_a_folder_that_is_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years of work")
    with pytest.raises(UsageError) as raised:
        write_layout(tiny(store), store=store, target=tmp_path / "mine")
    assert raised.value.code == "not-a-layout"
    assert (tmp_path / "mine" / "thesis").read_text() == "years of work"


def test_what_is_no_layout_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match=r"index\.json"):
            read_layout(path)
