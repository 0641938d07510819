"""Layers being made whose steps a test delays or has fail, and what is seen of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.layers import building_layers
from pipeline.layers.segments import recall_segment, segment_identity
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.progress import Task
from pipeline.store import Store
from pipeline.trees import ComposedLayer
from tests.support.patience import HUNG

FIRST, SECOND, THIRD = {"usr/a": b"a" * 5000}, {"usr/b": b"b" * 70_000}, {"usr/c": os.urandom(9 << 20)}


def building(store: Store, *layers: ComposedLayer, **more: Any) -> Any:
    more.setdefault("compression", Compression.GZIP)
    return building_layers(layers, store=store, **{"unpack": True, **more})


def before(monkeypatch: pytest.MonkeyPatch, step: str, does: Callable[[TwoStepLayer, Any], None]) -> None:
    """Have something done before a step of a layer; it is given the layer and the step's first argument."""
    real = getattr(TwoStepLayer, step)

    def first(self: TwoStepLayer, *given: Any) -> Any:
        does(self, given[0] if given else None)
        return real(self, *given)

    monkeypatch.setattr(TwoStepLayer, step, first)


def held(monkeypatch: pytest.MonkeyPatch, step: str) -> threading.Event:
    """A step of all layers waits for the event."""
    go = threading.Event()
    before(monkeypatch, step, lambda *_: wait_for(go))
    return go


def wait_for(event: threading.Event) -> None:
    assert event.wait(HUNG)


def remembered(store: Store, layer: ComposedLayer, compression: Compression = Compression.GZIP) -> list[bool]:
    """Which segments of a layer the store remembers."""
    return [recall_segment(segment_identity(part, compression), store) is not None for part in layer.parts]


def drafts(store: Store) -> list[Path]:
    return list((store.root / "tmp").iterdir())


class Told:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, stage: str, label: str, **more: Any) -> Task:
        self.said.append(f"{stage} {label}")
        return _Told(f"{stage} {label}")

    def finish(self, task: Any, *, failed: bool = False) -> None:
        self.said.append(f"{task.name}: {'failed' if failed else task.text}")

    def warn(self, text: str) -> None:
        self.said.append(text)


class _Told:
    def __init__(self, name: str) -> None:
        self.name, self.text = name, ""

    def advance(self, amount: int) -> None: ...

    def note(self, text: str) -> None:
        self.text = text
