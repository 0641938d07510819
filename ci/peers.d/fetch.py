"""Fetches Debian's packages into a folder; see ci/peers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from archive import Archive
from closure import DebianPackage, Suites

SUITES = ("trixie", "sid")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names of what a kernel calls its machine."""


class Packages:
    """Debian's packages of two suites, for the folder of a purpose, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        machine = os.uname().machine
        self._archive = Archive(folder.parent / "apt", folder.parent / "debs", ARCHITECTURES.get(machine, machine))
        self._archive.update(SUITES)
        (folder / "bin").mkdir(parents=True)

    def suites(self, order: tuple[str, ...] = SUITES) -> Suites:
        """The packages on offer, those of the first suite preferred."""
        return self._archive.suites(order)

    def unpack(self, packages: Iterable[DebianPackage], target: Path) -> None:
        """Fetch packages and unpack all of them into one folder. Raises ArchiveUnavailable."""
        target.mkdir(parents=True, exist_ok=True)
        for path in self._archive.fetch(list(packages)).values():
            subprocess.run(["dpkg-deb", "-x", path, target], check=True)
