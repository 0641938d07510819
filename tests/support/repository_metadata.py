"""Puts metadata into RPM repositories, as their operators do: with modifyrepo_c."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.updateinfo import Update, updateinfo


def add_metadata(repository: Path, name: str, data: bytes) -> None:
    """A document that repomd.xml names by the stem of `name` (`updateinfo.xml`, `modules.yaml`)."""
    document = repository / name
    document.write_bytes(data)
    subprocess.run(["modifyrepo_c", document, repository / "repodata"], check=True, capture_output=True)
    document.unlink()


def add_updateinfo(repository: Path, *updates: Update) -> None:
    """Advisories."""
    add_metadata(repository, "updateinfo.xml", updateinfo(*updates))
