"""A packing that is abandoned ends within a piece, and nobody waits for its layers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId
from pipeline.layers import building_layers, layer_packing, segments, tree_packing, two_step_layer
from pipeline.layers.layer_tree import LayerTree
from pipeline.layers.tar_marks import TarKey
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.layers.unpack_layer import read_blob_back
from pipeline.model.tree import Entry
from pipeline.packages import PayloadFile
from pipeline.store import BlobWriter, Store
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages, made
from tests.support.packing_steps import FIRST, SECOND, THIRD, before, building, drafts
from tests.support.patience import HUNG

Files = Mapping[str, bytes | str | None]

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def abandon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Abandons the packing that was begun last, as Ctrl-C does."""
    begun: list[tree_packing.TreePacking] = []
    real = tree_packing.TreePacking._begin

    def begin(self: tree_packing.TreePacking) -> None:
        begun.append(self)
        real(self)

    monkeypatch.setattr(tree_packing.TreePacking, "_begin", begin)
    return lambda: begun[-1]._abandon()  # noqa: PLW0108 - none is begun yet


def test_a_large_file_is_not_unpacked_to_its_end(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch, abandon: Callable[[], None]
) -> None:
    layer = packages.layer(c={"usr/c": b"c" * (8 << 10)})
    asked: list[int] = []

    def pieces() -> Iterator[memoryview]:
        for number in range(8):
            asked.append(number)
            if number == 2:
                abandon()
            yield memoryview(b"c" * 1024)

    monkeypatch.setattr(segments, "read_payload", lambda _: iter([PayloadFile((0,), 8 << 10, pieces, "")]))
    with pytest.raises(CancelledError), building(store, layer):
        pytest.fail("there is no tree")
    assert asked == [0, 1, 2] and drafts(store) == []


@pytest.mark.parametrize("shared", [False, True])
def test_files_that_wait_are_not_hashed_to_the_end(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch, abandon: Callable[[], None], shared: bool
) -> None:
    many: Files = {f"usr/f{number:02}": os.urandom(500) for number in range(40)}
    if shared:
        made(store, packages.layer(a=FIRST, b=many))
    layers: list[TwoStepLayer] = []
    before(monkeypatch, "keep", lambda layer, _: layers.append(layer))
    counted: list[bool] = []
    real = LayerTree.count

    def count(self: LayerTree, entry: Entry, **more: Any) -> None:
        real(self, entry, **more)
        if layers and entry.path.startswith("usr/f"):
            counted.append(bool(more.get("shared")))
            if len(counted) == 3:
                abandon()

    monkeypatch.setattr(LayerTree, "count", count)
    with pytest.raises(CancelledError), building(store, packages.layer(a={"usr/a": b"z"}, b=many)):
        pytest.fail("there is no tree")
    assert counted == [shared] * 3


def test_a_segment_of_the_store_is_not_copied_to_the_end(
    store: Store,
    packages: Packages,
    three: ComposedLayer,
    monkeypatch: pytest.MonkeyPatch,
    abandon: Callable[[], None],
) -> None:
    made(store, three)
    more = packages.layer(a=FIRST, b=SECOND, c=THIRD, d={"usr/d": b"d"})
    before(monkeypatch, "_append", lambda layer, at: abandon() if at == 2 and layer.kept.result() else None)
    appended: list[int] = []
    real = TwoStepLayer._append

    def append(self: TwoStepLayer, at: int, blob: BlobWriter) -> None:
        size = blob.size
        try:
            real(self, at, blob)
        finally:
            appended.append(blob.size - size)

    monkeypatch.setattr(TwoStepLayer, "_append", append)
    with pytest.raises(KeyboardInterrupt), building(store, more):
        while len(appended) < 3:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert len(appended) == 3 and appended[2] == 0


@pytest.mark.parametrize("seen", [0, 1])
def test_a_blob_is_not_read_back_to_the_end(store: Store, three: ComposedLayer, seen: int) -> None:
    layer = made(store, three)
    calls = iter([None] * seen)
    given = {"size": layer.blob.size, "tar_size": layer.tar_size, "name": "x", "store": store, "key": TarKey()}
    with pytest.raises(StopIteration):
        read_blob_back(layer.blob.digest, go_on=lambda: next(calls), **given)  # type: ignore[arg-type]


def test_what_follows_a_draft_that_nobody_wants_is_closed(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_before = {one.name for one in Path("/proc/self/fd").iterdir()}
    before(monkeypatch, "assemble", lambda layer, _: layer.draft.cancel())
    kept: list[BaseException] = []
    real = two_step_layer._give

    def give(*given: Any) -> None:
        try:
            real(*given)
        except BaseException as error:
            kept.append(error)  # With all that its frames have.
            raise

    monkeypatch.setattr(two_step_layer, "_give", give)
    with pytest.raises(KeyboardInterrupt), building(store, three):
        while not kept:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert {one.name for one in Path("/proc/self/fd").iterdir()} <= open_before


@pytest.mark.parametrize("unpack", [True, False])
def test_who_waits_for_a_blob_that_is_abandoned_waits_no_more(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch, unpack: bool
) -> None:
    """`wait` ends for a cancelled future only when somebody is told that it is."""

    def until_abandoned(*_: Any, go_on: Callable[[], None], **__: Any) -> DiffId:
        while True:
            go_on()
            time.sleep(0.01)

    monkeypatch.setattr(layer_packing, "read_blob_back", until_abandoned)
    before(monkeypatch, "compress", lambda layer, _: layer.abandoned.wait(HUNG))
    layers = [packages.layer(a=FIRST), packages.layer(b=SECOND)]
    ended: list[bool] = []
    with (
        pytest.raises(KeyboardInterrupt),
        building_layers(layers, store=store, compression=Compression.GZIP, unpack=unpack) as made,
    ):
        blobs = [one.blob for one in made]
        waiting = threading.Thread(target=lambda: ended.append(not wait(blobs, timeout=HUNG).not_done))
        waiting.start()
        raise KeyboardInterrupt
    assert not wait(blobs, timeout=0).not_done
    waiting.join(HUNG)
    assert ended == [True]
