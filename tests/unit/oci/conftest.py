"""Fixtures of the tests of images as documents and layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.oci import write_layout
from pipeline.store import Store
from tests.support.tiny_image import tiny


@pytest.fixture
def layout(store: Store, tmp_path: Path) -> Path:
    """A layout of the tiny image."""
    target = tmp_path / "out" / "tiny"
    write_layout(tiny(store), store=store, target=target)
    return target
