"""Packages, repositories and keys of real distributions, which are no part of the checkout.

The folder is `$RELBUILD_REAL`, else `shared/real` beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("RELBUILD_REAL") or Path(__file__).parents[3] / "shared/real")


def real_folder(name: str) -> Path:
    """A folder of the real material. The test is skipped, by name, where it is absent."""
    found = REAL / name
    if not found.is_dir():
        pytest.skip(f"{found} is absent: set RELBUILD_REAL to the folder of real packages and keys")
    return found
