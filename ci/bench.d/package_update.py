"""A repository in which an update of one package appears: tzdata with another time in one zone.

The development mirror's own updates change documents alone, which products leave out, and no layer with them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from generated_packages import GeneratedRepository
from product import package_file
from turns import MIRROR, BenchFailed, run

UPDATED = "tzdata"
"""The package that is updated: it is in every product's base."""
ZONES = Path("usr/share/zoneinfo")
ZONE, TIME = ZONES / "America/Vancouver", ZONES / "Etc/GMT+7"
"""What the update changes, and to what: a zone without summer time from now on."""


class PackageUpdate:
    """A signed repository in `folder`, which is empty until the update is published in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder / "repository"
        made = GeneratedRepository(folder / "made")
        made.finish()
        self._empty = Path(shutil.copytree(made.folder, folder / "empty"))
        made.add_update(package_file(_newest()), _change)
        made.finish()
        self._full = made.folder
        self.withdraw()

    def withdraw(self) -> None:
        """Make the repository as it was before the update."""
        self._replace(self._empty)

    def publish(self) -> None:
        """Put the update into the repository."""
        self._replace(self._full)

    def _replace(self, state: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(state, self.folder)


def _change(tree: Path) -> None:
    shutil.copyfile(tree / TIME, tree / ZONE)


def _newest() -> str:
    """Return the newest package of the name in the mirror, as NAME-VERSION-RELEASE.ARCH."""
    words = [f"--repofrompath={name},file://{MIRROR}/{name}" for name in ("base", "updates")]
    found = run(
        "dnf", "repoquery", "--quiet", "--setopt=reposdir=/dev/null", *words, "--repo=base,updates", "--latest-limit=1",
        "--queryformat=%{name}-%{version}-%{release}.%{arch}", UPDATED,
    ).split()  # fmt: skip
    if not found:
        raise BenchFailed(f"the mirror has no {UPDATED}")
    return found[-1]
