"""Fixtures of the tests of builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.build.remembered_build import (
    TOOK,
    remember_build,
)
from tests.support.finished_builds import (
    NAME,
    FinishedBuild,
    make_finished_build,
)


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedBuild:
    """A build, remembered."""
    made = make_finished_build(tmp_path, monkeypatch)
    snapshot = made.snapshot()
    assert snapshot is not None
    remember_build(made.env.store, NAME, snapshot.saying(warnings=(), lines=(f"in {TOOK} s",), all_lines=(), answer={}))
    return made
