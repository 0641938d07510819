"""What ends the packing of layers beside a build, or changes their trees meanwhile: nothing wrong is kept or told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
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
from pipeline.store import Store
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages
from tests.support.packing_steps import FIRST, SECOND, THIRD, building, held


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def packages(store: Store, monkeypatch: pytest.MonkeyPatch) -> Packages:
    return Packages(store, monkeypatch)


@pytest.fixture
def three(packages: Packages) -> ComposedLayer:
    return packages.layer(a=FIRST, b=SECOND, c=THIRD)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    there = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= there


# --- the state layer ---------------------------------------------------------------------------------------


@pytest.fixture
def state(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[BuiltLayer]], StateLayer]:
    """Makes a state layer of what usr/b of the layer's tree begins with."""

    def make(inputs: StateInputs, *_: Any, **__: Any) -> state_layer._Known:
        (folder,) = lower_folders(inputs.layers, store=store)
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
        sandboxes=lambda: unused,
        compression=Compression.GZIP,
        progress=QUIET,
    )


def test_a_state_layer_on_a_tree_that_the_disk_has_changed_is_not_remembered(
    store: Store, three: ComposedLayer, state: Callable[..., StateLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, "compress")
    with monkeypatch.context() as blind, pytest.raises(VerificationError) as caught, building(store, three) as (one,):
        (folder,) = lower_folders([one], store=store)
        with (folder / "usr/b").open("r+b") as file:
            file.write(b"X")
        blind.setattr("pipeline.store.unpacked_trees.tree_holds", lambda *_, **more: not more.get("reading"))
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
