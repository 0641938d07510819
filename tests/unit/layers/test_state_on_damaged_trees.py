"""State layers on trees that the disk has changed: none is remembered that was made on one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId
from pipeline.errors import BuildError, VerificationError
from pipeline.layers import BuiltLayer, lower_folders, state_layer
from pipeline.layers.state_layer import StateInputs, StateLayer, build_state_layer
from pipeline.layers.state_plan import StatePlan
from pipeline.model.accounts import AccountTable
from pipeline.model.image import Descriptor, Layer
from pipeline.model.rpm_database import RpmDatabase
from pipeline.model.scriptlets import ScriptletRules
from pipeline.model.tree import Tree
from pipeline.progress import QUIET
from pipeline.store import Store, unpacked_trees
from pipeline.store.tree_seals import TreeFault
from pipeline.trees import ComposedLayer
from tests.support.packing_steps import before, building, held, wait_for
from tests.support.patience import HUNG

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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
        before(waiting, "compress", lambda layer, _: layer.abandoned.wait(HUNG))
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
