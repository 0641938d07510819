"""A mirror in a directory of the test's own, and a store beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from tests.support import mirror_images


@pytest.fixture
def mirror(tmp_path: Path) -> DirectoryMirror:
    return open_directory(tmp_path / "mirror", create=True, clock=mirror_images.ticking(), host="images.example/team")
