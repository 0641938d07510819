"""Mirrors in memory where there is one: every file of a publication is synced to the disk, which is not what these
tests are about."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.release import promote
from pipeline.store import Store
from tests.support.moved_tags import at, opened
from tests.support.published_images import RULES, ImagePublisher, SteppedClock, key


@contextmanager
def _folder() -> Iterator[Path]:
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="relbuild-", dir=base if os.access(base, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with _folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def moved() -> Iterator[tuple[Path, int]]:
    """A folder with a store, and a mirror that was published to from it; and how often a clock was looked at for it."""
    with _folder() as folder:
        maker = ImagePublisher.at(folder)
        repository = opened(folder / "mirror", maker)
        maker.publish(repository, maker.image("1.0"), tags=("1.0", "latest"))
        promote(at(folder / "mirror"), "stable", key(), RULES, maker.build_env)
        maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
        yield folder, next(maker.clock.looks)


@pytest.fixture
def maker(tmp_path: Path, request: pytest.FixtureRequest) -> ImagePublisher:
    """With a new store, or the one from which `mirror` was published to."""
    if "mirror" not in request.fixturenames or "moved" not in request.fixturenames:
        return ImagePublisher.at(tmp_path)
    folder, looks = request.getfixturevalue("moved")
    shutil.copytree(folder / "store", tmp_path / "store", symlinks=True)
    return ImagePublisher(Store.open(tmp_path / "store"), SteppedClock(looks=itertools.count(looks)))


@pytest.fixture
def mirror(tmp_path: Path, moved: tuple[Path, int], maker: ImagePublisher) -> Path:
    """Two versions, one after the other; `stable` is the first."""
    return shutil.copytree(moved[0] / "mirror", tmp_path / "mirror", symlinks=True)
