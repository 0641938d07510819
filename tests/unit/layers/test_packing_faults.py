"""What ends the packing of layers beside a build, or changes their trees meanwhile: nothing wrong is kept or told."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.errors import STORE_DAMAGE_HINT, BuildError, VerificationError
from pipeline.layers import building_layers, layer_packing, lower_folders, tree_packing, two_step_layer
from pipeline.layers.built_layer import packed_layer
from pipeline.layers.layer_progress import LayerProgress
from pipeline.layers.layer_tree import LayerTree
from pipeline.layers.segments import recall_segment, segment_identity
from pipeline.layers.tree_writer import TreeWriter
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.model.tree import Entry
from pipeline.progress import Task
from pipeline.store import Store
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages, made
from tests.support.packing_steps import FIRST, SECOND, THIRD, Told, before, building, held, remembered, wait_for

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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
    assert (caught.value.code, caught.value.problems[0].hint) == ("blob-missing", STORE_DAMAGE_HINT)


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
    (problem,) = caught.value.problems
    assert problem.code == "blob-missing" and "run the command again" in (problem.hint or "")
    assert "→" not in problem.message
    assert made(store, more)


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
    wait_after = tree_packing.TreePacking._wait_after
    monkeypatch.setattr(
        tree_packing.TreePacking, "_wait_after", lambda packing, error: (go.set(), wait_after(packing, error))[1]
    )
    with pytest.raises(BuildError) as caught, building(store, three):
        raise failed
    assert caught.value is failed


def test_an_error_is_told_before_its_packing_is_waited_for(
    store: Store, three: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, told = held(monkeypatch, "compress"), Told()
    monkeypatch.setattr(tree_packing, "_LONG", 0.0)
    monkeypatch.setattr(told, "warn", lambda text: (told.said.append(text), go.set()))
    with pytest.raises(BuildError), building(store, three, progress=told):
        raise BuildError("scriptlet-failed", "%post of a failed\nand said more", place="a.rpm", hint="mend it")
    way = "; the build fails when the layers are packed, which the next build then finds"
    assert f"a.rpm: %post of a failed{way}" in told.said
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

    real_keep, real_count = LayerTree.keep, LayerProgress.assembled
    monkeypatch.setattr(LayerTree, "keep", lambda self, store: (wait_for(assembled), real_keep(self, store))[1])
    monkeypatch.setattr(LayerProgress, "assembled", lambda self, part: (real_count(self, part), assembled.set())[0])
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
