"""Mirrors in memory where there is one: every file of a publication is synced to the disk, which is not what these
tests are about."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.release import promote
from tests.support.moved_tags import at, opened
from tests.support.published_images import RULES, ImagePublisher, key


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="relbuild-", dir=base if os.access(base, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


@pytest.fixture
def mirror(tmp_path: Path, maker: ImagePublisher) -> Path:
    """Two versions, one after the other; `stable` is the first."""
    repository = opened(tmp_path / "mirror", maker)
    maker.publish(repository, maker.image("1.0"), tags=("1.0", "latest"))
    promote(at(tmp_path / "mirror"), "stable", key(), RULES, maker.build_env)
    maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
    return tmp_path / "mirror"
