"""Fixtures of the tests of builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.build.remembered_build import (
    TOOK,
    remember_build,
)
from pipeline.store import Store
from tests.support.finished_builds import (
    NAME,
    FinishedBuild,
    make_finished_build,
)
from tests.support.journal import Journal
from tests.support.launch_stand_ins import Bench
from tests.support.staged_builds import World


@pytest.fixture
def bench(store: Store, journal: Journal) -> Bench:
    """Return a store in which images are launched by stand-ins."""
    return Bench(store, journal)


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedBuild:
    """A build, remembered."""
    made = make_finished_build(tmp_path, monkeypatch)
    snapshot = made.snapshot()
    assert snapshot is not None
    remember_build(made.env.store, NAME, snapshot.saying(warnings=(), lines=(f"in {TOOK} s",), all_lines=(), answer={}))
    return made


@pytest.fixture
def world(tmp_path: Path, journal: Journal) -> World:
    """Return recipes in a folder, and stand-ins for all stages of a build."""
    return World(tmp_path, journal)
