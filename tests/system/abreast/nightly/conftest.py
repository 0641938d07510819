"""A small catalogue after its first night, which each test copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.catalogue import SmallCatalogue, small_catalogue
from tests.support.rpm_factory import Forge
from tests.support.tiny_root import require_root


@pytest.fixture(scope="module")
def published(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallCatalogue, Any]:
    """A catalogue after its first night, and what that night said. Tests copy it."""
    require_root()
    small = small_catalogue(tmp_path_factory.mktemp("night") / "it", made)
    code, night = small.nightly()
    assert code == 0, json.dumps(night, indent=1)
    return small, night


@pytest.fixture
def small(published: tuple[SmallCatalogue, Any], tmp_path: Path) -> SmallCatalogue:
    """A copy of it, with its store and its mirror."""
    first, _ = published
    folder = tmp_path / "it"
    shutil.copytree(first.folder, folder, symlinks=True)
    return SmallCatalogue(folder, first.forge, first.packages)
