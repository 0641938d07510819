"""Layers whose trees come first, and whose blobs are packed beside the caller: errors, damage, two at once."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.errors import BuildError, VerificationError
from pipeline.layers import BuiltLayer, chunk_writer, lower_folders, segment_contents, tree_packing, two_step_layer
from pipeline.layers.tree_writer import TreeWriter
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.store import BlobWriter, Store
from pipeline.streams import decompressed
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages, copied, made
from tests.support.packing_steps import FIRST, SECOND, THIRD, Told, before, building, drafts, held, remembered, wait_for
from tests.support.patience import HUNG
from tests.support.trees import read_tree

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

# --- the order of things -----------------------------------------------------------------------------------


def test_all_trees_are_there_before_anything_is_compressed(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    lower, upper = packages.layer(a=FIRST), packages.layer(b=SECOND, c=THIRD)
    with building(store, lower, upper) as layers:
        assert not any(one.blob.done() for one in layers) and [one.reused for one in layers] == [False, False]
        folders = lower_folders(layers, store=store)
        assert [(folder / "usr").is_dir() for folder in folders] == [True, True]
        assert (folders[1] / "usr/c").read_bytes() == THIRD["usr/c"]
        go.set()
        assert [store.has(one.layer.blob.digest) for one in layers] == [True, True], "whoever asks waits"


def test_a_worker_compresses_nothing_while_there_is_a_tree_to_be_written(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for step in ("place", "compress"):
        before(monkeypatch, step, lambda *_, step=step: steps.append(step))  # type: ignore[misc]
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: 1)
    with building(store, packages.layer(a=FIRST), packages.layer(b=SECOND, c=THIRD)):
        pass
    assert steps == ["place"] * 3 + ["compress"] * 3


def test_each_segment_is_remembered_when_the_blob_was_read_back_so_far(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[bool]] = []
    real = two_step_layer.remember_segment

    def remember(*given: Any) -> None:
        found.append(remembered(store, three))
        real(*given)

    monkeypatch.setattr(two_step_layer, "remember_segment", remember)
    with building(store, three):
        pass
    assert found == [[False] * 3, [True, False, False], [True, True, False]]
    assert remembered(store, three) == [True] * 3


def test_a_blob_is_read_back_while_it_is_written(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = threading.Event()
    real = two_step_layer.remember_segment
    monkeypatch.setattr(two_step_layer, "remember_segment", lambda *given: (real(*given), first.set()))
    before(monkeypatch, "compress", lambda layer, at: wait_for(first) if at else None)
    with building(store, three) as (layer,):
        assert layer.layer.blob.size


def test_a_small_blob_is_read_back_while_the_largest_is_compressed(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    before(monkeypatch, "compress", lambda layer, _: wait_for(go) if layer.plan.content_size > 1 << 20 else None)
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: 2)
    with building(store, packages.layer(a=FIRST), packages.layer(c=THIRD)) as (small, large):
        assert store.has(small.layer.blob.digest) and not large.blob.done()
        go.set()
        assert store.has(large.layer.blob.digest)


def test_the_tree_and_the_blob_are_two_tasks_of_the_same_layer(store: Store, packages: Packages) -> None:
    told = Told()
    wanted = packages.layer(a=FIRST)
    with building(store, wanted, progress=told):
        pass
    assert told.said == ["layer base", "layer base: 1 packages, 0.0 MB", "compress base", "compress base: 0.0 MB"]
    told.said.clear()
    with building(store, wanted, progress=told):
        pass
    assert told.said == ["layer base", "layer base: reused"]


# --- errors ------------------------------------------------------------------------------------------------


def test_layers_are_there_for_the_next_build_where_a_scriptlet_fails(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, failed = held(monkeypatch, "compress"), BuildError("scriptlet-failed", "%post of a failed")
    with pytest.raises(BuildError) as caught, building(store, three):
        go.set()
        raise failed
    assert caught.value is failed
    with building(store, three) as (again,):
        assert again.reused


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "no disk"), SystemExit(1)])
def test_a_packing_that_nobody_waits_for_ends_soon_and_leaves_nothing(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    begun, abandoned = threading.Event(), list[threading.Event]()

    def slow(room: memoryview) -> None:
        begun.set()
        assert abandoned[0].wait(HUNG)

    begin, real = TwoStepLayer.begun, segment_contents._read
    monkeypatch.setattr(
        TwoStepLayer, "begun", lambda *given, **more: (abandoned.append(more["abandoned"]), begin(*given, **more))[1]
    )
    monkeypatch.setattr(segment_contents, "_read", lambda *given: (slow(given[-1]), real(*given))[1])
    told = Told()
    with pytest.raises(type(error)) as caught, building(store, three, progress=told) as (layer,):
        wait_for(begun)
        raise error
    assert caught.value is error
    assert drafts(store) == [] and remembered(store, three) == [False] * 3
    assert told.said[-1] == "compress base: failed"
    with pytest.raises(CancelledError):
        layer.blob.result()
    with building(store, three) as (again,):
        assert not again.reused and again.diff_id == layer.diff_id


@pytest.mark.parametrize("noticed", ["at the end", "where the blob is needed", "behind an error that it caused"])
def test_what_goes_wrong_in_packing_is_raised_wherever_it_is_noticed_first(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "blob-x")

    go = threading.Event()

    def fail(layer: TwoStepLayer, at: int) -> None:
        wait_for(go)
        if at == 1:
            raise full

    before(monkeypatch, "compress", fail)
    told = Told()
    with pytest.raises(OSError, match="No space left") as caught, building(store, three, progress=told) as (layer,):
        go.set()
        if noticed == "where the blob is needed":
            assert layer.layer
        elif noticed != "at the end":
            layer.blob.exception()
            raise BuildError("scriptlet-failed", "%post of a could not write")
    assert caught.value is full
    assert drafts(store) == [] and told.said[-1] == "compress base: failed"


def test_an_error_of_the_tree_is_raised_before_the_block(
    store: Store, packages: Packages, three: ComposedLayer
) -> None:
    store.blob(three.parts[1].checksum).unlink()
    with pytest.raises(VerificationError) as caught, building(store, three):
        pytest.fail("there is no tree")
    assert caught.value.code == "blob-missing" and drafts(store) == []
    packages.layer(b=SECOND)  # Puts it again.
    with building(store, three) as (layer,):
        assert not layer.reused


def test_a_layer_that_cannot_be_remembered_fails_and_its_lock_is_free(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.layers.layer._remember", refuse)
    with pytest.raises(OSError, match="No space"), building(store, three):
        pass
    monkeypatch.undo()


# --- damage ------------------------------------------------------------------------------------------------


def test_a_file_that_the_disk_changes_before_it_is_compressed_is_no_layer(
    store: Store, packages: Packages, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    with (
        pytest.raises(VerificationError, match="its tree, in which the disk") as caught,
        building(store, three) as (one,),
    ):
        (folder,) = lower_folders([one], store=store)
        with (folder / "usr/b").open("r+b") as file:
            file.write(b"x")
        go.set()
    assert caught.value.code == "diff-id-mismatch"
    assert remembered(store, three) == [True, False, False] or remembered(store, three) == [False] * 3
    assert not folder.exists() and drafts(store) == []
    packages.read.clear()
    again = made(store, three)
    assert again.diff_id == one.diff_id and packages.read, "from the payloads"


def test_a_file_that_the_disk_changes_before_it_is_hashed_is_no_layer(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TreeWriter.place

    def change(self: TreeWriter, entry: Any, pieces: Any = (), digest: str = "") -> None:
        real(self, entry, pieces, digest)
        if entry.path == "usr/b":
            handle = os.open("b", os.O_WRONLY, dir_fd=self._folder("usr"))
            os.write(handle, b"x")
            os.close(handle)

    monkeypatch.setattr(TreeWriter, "place", change)
    with pytest.raises(VerificationError, match="/usr/b has other bytes in its tree than were written"):
        made(store, three)
    monkeypatch.undo()


def test_a_file_that_was_cut_off_before_it_is_compressed_is_no_layer(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    with pytest.raises(VerificationError, match="/usr/b was cut off"), building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
        os.truncate(folder / "usr/b", 10)
        go.set()


def test_a_byte_of_the_blob_that_the_disk_changes_where_gzip_ignores_it_is_no_layer(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = held(monkeypatch, "read_back")
    finish = BlobWriter.finish

    def change(self: BlobWriter) -> None:
        with self._path.open("r+b") as file:
            file.seek(9)  # The operating system, in the header of the first member (RFC 1952, 2.3).
            file.write(b"\x03")
        finished.set()
        finish(self)

    monkeypatch.setattr(BlobWriter, "finish", change)
    with pytest.raises(VerificationError, match="were written") as caught:
        made(store, three)
    assert caught.value.code == "digest-mismatch" and drafts(store) == []
    assert remembered(store, three) == [False] * 3
    monkeypatch.setattr(BlobWriter, "finish", finish)
    assert made(store, three)


def test_a_tree_that_is_lost_is_unpacked_from_the_blob_when_that_is_there(
    store: Store, three: ComposedLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "read_back")
    with building(store, three) as (one,):
        store.trees.path(one.diff_id).rename(tmp_path / "lost")
        threading.Timer(0.2, go.set).start()
        (folder,) = lower_folders([one], store=store)
        assert go.is_set() and read_tree(folder) == read_tree(tmp_path / "lost/root")


def _told_by(
    change: Callable[[bytes], bytes], store: Store, layer: ComposedLayer, compression: Compression
) -> VerificationError:
    """What a build raises whose reader of the blob gets other bytes of tar than are in it."""
    real = two_step_layer.decompressed
    with pytest.MonkeyPatch.context() as faulty:
        faulty.setattr(
            two_step_layer,
            "decompressed",
            lambda *given, **more: (yield change(b"".join(real(*given, **more)))),
        )
        with pytest.raises(VerificationError) as caught, building(store, layer, compression=compression):
            pass
    assert drafts(store) == []
    return caught.value


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize(
    ("where", "told", "count"),
    [
        (b"usr/\0", "in what it has of a-1-1.noarch", 0),
        (b"a" * 5000, "in what it has of a-1-1.noarch", 0),
        (b"b" * 70_000, "in what it has of b-1-1.noarch", 1),
        (THIRD["usr/c"], "in what it has of c-1-1.noarch", 2),
        (bytes(1024), "at its end", 3),
    ],
    ids=["directories", "first", "second", "third", "end"],
)
def test_one_bit_that_a_blob_decompresses_to_names_its_package(
    store: Store, three: ComposedLayer, compression: Compression, where: bytes, told: str, count: int
) -> None:
    def flip(tar: bytes) -> bytes:
        at = tar.rindex(where) + len(where) - 1
        return tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :]

    error = _told_by(flip, store, three, compression)
    assert error.code == "diff-id-mismatch" and error.problems[0].message.endswith(told)
    assert remembered(store, three, compression) == [False] * 3, "the results of all were moved aside"
    with building(store, three, compression=compression) as (one,):
        assert one.layer
    assert remembered(store, three, compression) == [True] * 3


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tar: tar[:-1], "at its end"),
        (lambda tar: tar + b"\0", "at its end"),
        (lambda tar: tar[:-1024], "at its end"),
        (lambda tar: tar[:3000], "in what it has of a-1-1.noarch"),
        (lambda _: b"", "in what it has of a-1-1.noarch"),
        (lambda tar: b"\0" + tar, "in what it has of a-1-1.noarch"),
        (lambda tar: tar[:-1500] + tar[-1499:] + b"\0", "in what it has of c-1-1.noarch"),
    ],
    ids=["a byte less", "a byte more", "no end marker", "few bytes", "none", "moved", "moved at the end"],
)
def test_a_blob_that_decompresses_to_more_or_less_is_no_layer(
    store: Store, three: ComposedLayer, compression: Compression, change: Callable[[bytes], bytes], told: str
) -> None:
    error = _told_by(change, store, three, compression)
    assert error.code == "diff-id-mismatch" and error.problems[0].message.endswith(told)


@pytest.mark.parametrize("compression", Compression)
def test_the_tree_is_hashed_as_the_blob_decompresses(
    store: Store, three: ComposedLayer, compression: Compression
) -> None:
    with building(store, three, compression=compression) as (one,):
        layer = one.layer
    found = hashlib.sha256()
    with store.reading(layer.blob.digest) as file:
        for piece in decompressed(file, limit=layer.tar_size, name="x"):
            found.update(piece)
    assert found.hexdigest() == layer.diff_id.hex, "sha256 over what is in the blob, which the build has not computed"


# --- two at once -------------------------------------------------------------------------------------------


def test_builds_at_once_that_share_layers_make_each_once_and_end(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = packages.layer(a=FIRST), packages.layer(b=SECOND), packages.layer(c=THIRD)
    before(monkeypatch, "read_back", lambda *_: time.sleep(0.05))
    found: list[list[BuiltLayer]] = []

    def build(*layers: ComposedLayer) -> None:
        with building(store, *layers) as built:
            lower_folders(built, store=store)
            found.append(built)

    threads = [threading.Thread(target=build, args=layers) for layers in ((a, b), (b, c), (c, a), (c, b, a))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HUNG)
    assert not any(thread.is_alive() for thread in threads) and len(found) == 4
    assert len({one.layer.blob.digest for built in found for one in built}) == 3
    assert sum(not one.reused for built in found for one in built) == 3 and len(packages.read) == 3


def test_a_build_whose_error_waits_for_its_packing_can_be_interrupted_all_the_same(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")

    def interrupted(*_: Any) -> None:
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(tree_packing.TreePacking, "_wait_after", interrupted)
    with pytest.raises(KeyboardInterrupt), building(store, three):
        raise BuildError("scriptlet-failed", "%post of a failed")
    assert drafts(store) == []


def test_the_layer_of_a_copied_blob_unpacks_to_the_tree_that_came_first(
    store: Store, three: ComposedLayer, tmp_path: Path
) -> None:
    with building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
    other = copied(store, one.layer, tmp_path / "other")
    assert read_tree(folder) == read_tree(lower_folders([one.layer], store=other)[0])
