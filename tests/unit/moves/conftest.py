"""Mirrors in memory where there is one: every file of a publication is synced to the disk, which is not what these
tests are about."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.published import Maker


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="relbuild-", dir=base if os.access(base, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker.at(tmp_path)
