"""Data classes for an RPM: NEVRA with its parsing, checksum, size and source."""

from __future__ import annotations

import re

from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.lazy_dataclasses import dataclass

SOURCE_ARCH = "src"
"""The architecture of source packages in file names and metadata; their headers say the builder's."""

NO_SOURCE_ARCH = "nosrc"
"""The same of source packages that may not bring all of their sources."""


@dataclass(frozen=True, slots=True)
class Nevra:
    """Name, epoch, version, release, architecture.

    Sorts by its text, which is stable and not rpm's order of versions; compare versions with
    `pipeline.packages.versions`.
    """

    name: str
    epoch: int
    version: str
    release: str
    arch: str

    @property
    def evr(self) -> str:
        """`[epoch:]version-release`, the epoch only when it is not 0."""
        return f"{self.epoch}:{self.version}-{self.release}" if self.epoch else f"{self.version}-{self.release}"

    def variables(self) -> dict[str, object]:
        """Return the members of `packages[NAME]` in templates."""
        return {
            "name": self.name,
            "epoch": self.epoch,
            "version": self.version,
            "release": self.release,
            "evr": self.evr,
            "arch": self.arch,
            "nevra": str(self),
        }

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"

    def __lt__(self, other: Nevra) -> bool:
        return str(self) < str(other)

    @classmethod
    def parse(cls, text: str) -> Nevra:
        """`name-[epoch:]version-release.arch` → value. Raises RecipeError `nevra-malformed`."""
        found = re.fullmatch(r"(.+)-(?:([0-9]{1,10}):)?([^-:]+)-([^-]+)\.([^.-]+)", text)
        if not found:
            raise RecipeError("nevra-malformed", f"'{text}' is not name-[epoch:]version-release.arch")
        name, epoch, version, release, arch = found.groups()
        return cls(name, int(epoch or 0), version, release, arch)


@dataclass(frozen=True, slots=True)
class Package:
    """One RPM of a repository, or by a local path.

    `checksum` is the sha256 of the whole file, `size` its bytes, `repository` the id of the repository
    that it comes from (`@file` for a local path), `location` the path below that repository's root (or the
    local path, relative to the recipe), `build_time` seconds since the epoch (RPMTAG_BUILDTIME),
    `source_rpm` the name of its source package, `installed_size` bytes of its content.
    """

    nevra: Nevra
    checksum: Digest
    size: int
    repository: str
    location: str
    build_time: int
    source_rpm: str = ""
    installed_size: int = 0

    def __lt__(self, other: Package) -> bool:
        return (str(self.nevra), str(self.checksum)) < (str(other.nevra), str(other.checksum))
