"""What ends the packing of layers beside a build, or changes their trees meanwhile: nothing wrong is kept or told."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId
from pipeline.errors import BuildError, VerificationError
from pipeline.layers import (
    BuiltLayer,
    building_layers,
    layer_packing,
    lower_folders,
    segments,
    state_layer,
    tree_packing,
    two_step_layer,
)
from pipeline.layers.built_layer import packed_layer
from pipeline.layers.layer_tree import LayerTree
from pipeline.layers.segments import recall_segment, segment_identity
from pipeline.layers.state_layer import StateInputs, StateLayer, build_state_layer
from pipeline.layers.state_plan import StatePlan
from pipeline.layers.tar_marks import TarKey
from pipeline.layers.tree_writer import TreeWriter
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.layers.unpack_layer import read_blob_back
from pipeline.model.accounts import AccountTable
from pipeline.model.image import Descriptor, Layer
from pipeline.model.rpm_database import RpmDatabase
from pipeline.model.scriptlets import ScriptletRules
from pipeline.model.tree import Entry, Tree
from pipeline.packages import PayloadFile
from pipeline.progress import QUIET, Task
from pipeline.store import BlobWriter, Store, unpacked_trees
from pipeline.store.tree_seals import TreeFault
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages, made
from tests.support.packing_steps import FIRST, SECOND, THIRD, Told, before, building, drafts, held, remembered, wait_for

Files = Mapping[str, bytes | str | None]


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


# --- the state layer ---------------------------------------------------------------------------------------


@pytest.fixture
def state(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[BuiltLayer]], StateLayer]:
    """Makes a state layer of what usr/b of the layer's tree begins with."""

    def make(inputs: StateInputs, *_: Any, mounted: Callable[[], None], **__: Any) -> state_layer._Known:
        (folder,) = lower_folders(inputs.layers, store=store)
        mounted()
        with store.writer() as blob:
            blob.write((folder / "usr/b").read_bytes()[:1])
        layer = Layer("state", DiffId(blob.digest.hex), Descriptor("layer", blob.digest, blob.size), blob.size)
        return state_layer._Known(layer, (), ())

    monkeypatch.setattr(state_layer, "_make", make)
    inputs = StateInputs((), (), {}, {}, Tree({}), AccountTable((), ()), (), (), RpmDatabase("/var/lib/rpm"), 2, 5)
    unused: Any = None
    return lambda layers: build_state_layer(
        replace(inputs, layers=tuple(layers)),
        ScriptletRules(),
        StatePlan((), None),
        store=store,
        prepared=unused,
        compression=Compression.GZIP,
        progress=QUIET,
    )


def blind_to_damage(*_: object, reading: bool = False) -> TreeFault | None:
    """The disk's changes leave no trace in times: they are seen by reading alone."""
    return TreeFault.DAMAGED if reading else None


def test_a_state_layer_on_a_tree_that_the_disk_has_changed_is_not_remembered(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    with monkeypatch.context() as blind, pytest.raises(VerificationError) as caught, building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
        with (folder / "usr/b").open("r+b") as file:
            file.write(b"X")
        blind.setattr("pipeline.store.unpacked_trees.tree_fault", blind_to_damage)
        wrong = state([one])
        assert store.read(wrong.layer.blob.digest, limit=9) == b"X"
        go.set()
    assert caught.value.code == "diff-id-mismatch"
    with building(store, three) as (two,):
        right = state([two])
    assert two.diff_id == one.diff_id and not right.reused
    assert store.read(right.layer.blob.digest, limit=9) == b"b"
    with building(store, three) as (two,):
        assert two.reused and state([two]).reused


@pytest.mark.parametrize("error", [None, BuildError("scriptlet-failed", "a later step"), OSError("no disk")])
def test_a_state_layer_is_remembered_when_the_packing_was_fine_whatever_the_block_raised(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], error: Exception | None
) -> None:
    try:
        with building(store, three) as (one,):
            assert not state([one]).reused
            assert one.layer
            if error is not None:
                raise error
    except (BuildError, OSError) as caught:
        assert caught is error
    with building(store, three) as (one,):
        assert state([one]).reused


def test_a_state_layer_is_not_remembered_when_the_packing_was_abandoned(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has compared the trees that it was made on."""
    with monkeypatch.context() as waiting:
        before(waiting, "compress", lambda layer, _: layer.abandoned.wait(30))
        with pytest.raises(OSError, match="no disk"), building(store, three) as (one,):
            state([one])
            raise OSError("no disk")
    with building(store, three) as (one,):
        assert not state([one]).reused
    with building(store, three) as (one,):
        assert state([one]).reused


@pytest.mark.parametrize("found", ["afterwards", "while the other one packs"])
def test_a_state_layer_counts_no_more_when_another_build_finds_its_tree_damaged(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Of two builds the first one's tree stays, and who made it finds what the disk has changed in it."""
    go = {Compression.ZSTD: threading.Event(), Compression.GZIP: threading.Event()}
    before(monkeypatch, "compress", lambda layer, _: wait_for(go[layer.compression]))

    def build_gzip() -> None:
        with building(store, three) as (one,):
            (folder,) = lower_folders([one], store=store)
            with (folder / "usr/b").open("r+b") as file:
                file.write(b"X")
            assert store.read(state([one]).layer.blob.digest, limit=9) == b"X"
            if found == "while the other one packs":
                go[Compression.ZSTD].set()
                while not store.trees.damages(one.diff_id):
                    time.sleep(0.01)
            go[Compression.GZIP].set()

    monkeypatch.setattr("pipeline.store.unpacked_trees.tree_fault", blind_to_damage)
    with pytest.raises(VerificationError) as caught, building(store, three, compression=Compression.ZSTD) as (other,):
        if found == "afterwards":
            build_gzip()
            go[Compression.ZSTD].set()
        else:
            with pytest.raises(VerificationError, match="while scriptlets ran on it"):
                build_gzip()
    assert caught.value.code == "diff-id-mismatch" and not store.trees.path(other.diff_id).exists()
    with building(store, three) as (one,):
        right = state([one])
    assert one.reused and not right.reused
    assert store.read(right.layer.blob.digest, limit=9) == b"b"
    with building(store, three) as (one,):
        assert state([one]).reused


def test_a_tree_that_is_found_damaged_before_it_is_mounted_is_unpacked_again_and_used(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut, when all files are read at the first look, which comes with the mount."""
    with building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
    (folder / "usr/b").write_bytes(b"X")
    with monkeypatch.context() as restarted, building(store, three) as (one,):
        assert one.reused and store.trees.damages(one.diff_id) == 0
        real = unpacked_trees.tree_fault
        looks = iter([TreeFault.DAMAGED])
        restarted.setattr(unpacked_trees, "tree_fault", lambda *parts, **how: next(looks, None) or real(*parts, **how))
        right = state([one])
        assert store.trees.damages(one.diff_id) == 1 and not right.reused
    assert store.read(right.layer.blob.digest, limit=9) == b"b"
    with building(store, three) as (one,):
        assert state([one]).reused, "it is remembered with that damage"


# --- a tree that is removed meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["its seal is broken", "it is gone"])
def test_a_tree_that_is_removed_before_it_is_compressed_is_read_from_the_packages_again(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    go = held(monkeypatch, "compress")
    with building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
        shutil.copytree(folder, tmp_path / "before", symlinks=True)
        if how == "it is gone":
            shutil.rmtree(folder.parent)
        else:
            os.utime(folder / "usr/a", (1, 1))
        threading.Timer(0.2, go.set).start()
        (folder,) = lower_folders([one], store=store)
        assert all(
            (folder / path).read_bytes() == (tmp_path / "before" / path).read_bytes()
            for path in ("usr/a", "usr/b", "usr/c")
        )
    assert remembered(store, three) == [True] * 3
    with building(store, three) as (again,):
        assert again.reused


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_tree_that_is_removed_in_the_middle_of_a_package_gives_the_same_blob(
    store: Store, packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    files = {"usr/a": os.urandom(9 << 20), "usr/b": b"b" * 70_000, "usr/c": b"c", "usr/d": "c", "usr/e": b""}
    wanted = packages.layer(p=files)
    as_it_was = made(store, wanted).blob
    other = Store.open(tmp_path / "other")
    wanted = Packages(other, monkeypatch).layer(p=files)
    opened: list[str] = []
    real = TreeWriter.open_file

    def removed(self: TreeWriter, entry: Entry) -> int:
        opened.append(entry.path)
        if len(opened) > left:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", entry.path)
        return real(self, entry)

    go = held(monkeypatch, "compress")
    with building(other, wanted) as (one,):
        monkeypatch.setattr(TreeWriter, "open_file", removed)
        go.set()
    assert one.layer.blob == as_it_was and len(opened) == left + 1


def test_a_tree_that_is_removed_with_its_package_tells_what_is_missing(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    with pytest.raises(VerificationError) as caught, building(store, three) as (one,):
        shutil.rmtree(store.trees.path(one.diff_id))
        for part in three.parts:
            store.blob(part.checksum).unlink()
        go.set()
    assert caught.value.code == "blob-missing"


def test_an_earlier_tree_that_is_removed_while_it_is_hashed_is_told(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, packages.layer(a=FIRST, b=SECOND))
    changed = packages.layer(a={"usr/a": b"z"}, b=SECOND)
    before(monkeypatch, "keep", lambda layer, _: shutil.rmtree(layer.tree.earlier.root))  # type: ignore[union-attr]
    with pytest.raises(VerificationError, match="an earlier layer was removed") as caught, building(store, changed):
        pytest.fail("there is no tree")
    assert caught.value.problems[0].hint


def test_a_segment_that_is_lost_before_it_is_copied_is_told_with_its_package(
    store: Store, packages: Packages, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, three)
    more = packages.layer(a=FIRST, b=SECOND, c=THIRD, d={"usr/d": b"d"})
    lost = recall_segment(segment_identity(three.parts[1], Compression.GZIP), store)
    assert lost is not None

    def lose(layer: TwoStepLayer, _: int) -> None:
        layer.kept.result()
        store.blob(lost.digest).unlink(missing_ok=True)

    with monkeypatch.context() as losing:
        before(losing, "_append", lose)
        with pytest.raises(VerificationError, match=r"segment of b-1-1\.noarch") as caught, building(store, more):
            pass
    assert caught.value.code == "blob-missing" and "run the command again" in (caught.value.problems[0].hint or "")
    assert made(store, more)


# --- an end within a piece ---------------------------------------------------------------------------------


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


# --- which error is told -----------------------------------------------------------------------------------


def test_an_error_of_a_scriptlet_stays_where_the_packing_fails_later(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, failed = threading.Event(), BuildError("scriptlet-failed", "%post of a failed")

    def fail(_: TwoStepLayer, at: int) -> None:
        wait_for(go)
        if at == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    before(monkeypatch, "compress", fail)
    with pytest.raises(BuildError) as caught, building(store, three):
        threading.Timer(0.1, go.set).start()
        raise failed
    assert caught.value is failed


def test_an_error_is_told_before_its_packing_is_waited_for(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, told = held(monkeypatch, "compress"), Told()
    monkeypatch.setattr(tree_packing, "_LONG", 0.0)
    monkeypatch.setattr(told, "warn", lambda text: (told.said.append(text), go.set()))
    with pytest.raises(BuildError), building(store, three, progress=told):
        raise BuildError("scriptlet-failed", "%post of a failed")
    assert any(one.startswith("%post of a failed") for one in told.said)
    with building(store, three) as (again,):
        assert again.reused


def test_a_traced_session_has_the_blob_before_it_was_read_back(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = layer_packing.read_blob_back
    monkeypatch.setattr(layer_packing, "read_blob_back", lambda *given, **more: (wait_for(go), real(*given, **more))[1])
    with building_layers([three], store=store, compression=Compression.GZIP, unpack=False) as (one,):
        packed = packed_layer(one)
        assert not one.blob.done() and store.has(packed.blob.digest)
        go.set()
    assert one.layer == packed


# --- progress ----------------------------------------------------------------------------------------------


def test_compressed_bytes_advance_the_task_that_compresses(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembled, advanced = threading.Event(), {"layer": 0, "compress": 0}

    class Counting(Told):
        def start(self, stage: str, label: str, **more: Any) -> Task:
            made = super().start(stage, label, **more)
            made.advance = lambda amount: advanced.update({stage: advanced[stage] + amount})  # type: ignore[method-assign]
            return made

    real_keep, real_count = LayerTree.keep, TwoStepLayer._count_assembled
    monkeypatch.setattr(LayerTree, "keep", lambda self, store: (wait_for(assembled), real_keep(self, store))[1])
    monkeypatch.setattr(
        TwoStepLayer, "_count_assembled", lambda self, size: (real_count(self, size), assembled.set())[0]
    )
    with building(store, packages.layer(a=FIRST, b=SECOND), progress=Counting()):
        pass
    assert advanced == {"layer": 75_000, "compress": 75_000}


@pytest.mark.parametrize("which", [1, 2, 3])
def test_all_tasks_are_ended_where_a_layer_cannot_be_begun(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    tries = iter(range(1, 9))
    real = two_step_layer.find_earlier_tree

    def find(*given: Any) -> Any:
        if next(tries) == which:
            raise OSError(errno.EIO, "no disk")
        return real(*given)

    monkeypatch.setattr(two_step_layer, "find_earlier_tree", find)
    told = Told()
    layers = [replace(packages.layer(**{name: {f"usr/{name}": b"1"}}), name=name) for name in "abc"]
    with pytest.raises(OSError, match="no disk"), building(store, *layers, progress=told):
        pytest.fail("there is no tree")
    assert sorted(told.said) == sorted(text for name in "abc" for text in (f"layer {name}", f"layer {name}: failed"))


# --- what waits for layers that are not made ----------------------------------------------------------------


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
    before(monkeypatch, "compress", lambda layer, _: layer.abandoned.wait(30))
    layers = [packages.layer(a=FIRST), packages.layer(b=SECOND)]
    ended: list[bool] = []
    with (
        pytest.raises(KeyboardInterrupt),
        building_layers(layers, store=store, compression=Compression.GZIP, unpack=unpack) as made,
    ):
        blobs = [one.blob for one in made]
        waiting = threading.Thread(target=lambda: ended.append(not wait(blobs, timeout=10).not_done))
        waiting.start()
        raise KeyboardInterrupt
    assert not wait(blobs, timeout=0).not_done
    waiting.join(30)
    assert ended == [True]


@pytest.mark.parametrize("fails", ["the third layer", "what is begun before layers are made"])
def test_a_layer_that_cannot_be_recalled_leaves_no_task_unended(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    layers = [packages.layer(a=FIRST), packages.layer(b=SECOND), packages.layer(c=THIRD)]
    with building(store, layers[0]):
        pass
    told, real, looked = Told(), Store.recall_as, []

    def recall(self: Store, *given: Any) -> Any:
        looked.append(given)
        if len(looked) == 3 and fails == "the third layer":
            raise OSError("no disk")
        return real(self, *given)

    def making() -> None:
        raise OSError("no disk")

    monkeypatch.setattr(Store, "recall_as", recall)
    with pytest.raises(OSError, match="no disk"), building(store, *layers, progress=told, making=making):
        pytest.fail("there are no layers")
    assert told.said == ["layer base", "layer base: reused", *["layer base"] * 2, *["layer base: failed"] * 2]
