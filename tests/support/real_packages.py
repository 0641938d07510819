"""Real packages, repositories and recipes over them, which lie beside the checkout and are not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def real_packages() -> Path:
    """Return the folder of real packages; a test that asks for it is skipped, and says so, where there is none."""
    folder = Path(os.environ.get("RELBUILD_REAL") or ROOT.parent / "shared" / "real").resolve()
    if not (folder / "recipes" / "repositories.yaml").exists():
        pytest.skip(f"NO REAL PACKAGES in {folder}: set RELBUILD_REAL to the folder that holds them")
    return folder
