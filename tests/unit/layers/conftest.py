"""Fixtures of the tests of layers that are made."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.store import Store
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import Packages
from tests.support.packing_steps import FIRST, SECOND, THIRD


@pytest.fixture
def packages(store: Store, monkeypatch: pytest.MonkeyPatch) -> Packages:
    """Packages whose payloads are in memory."""
    return Packages(store, monkeypatch)


@pytest.fixture
def three(packages: Packages) -> ComposedLayer:
    """A layer of three packages."""
    return packages.layer(a=FIRST, b=SECOND, c=THIRD)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """The test ends all threads that it begins."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
