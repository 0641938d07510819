"""A folder with what is prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import write_demo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recipe and the file of its platforms."""
    return write_demo(tmp_path)
