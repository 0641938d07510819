"""Data classes for a lock: resolutions by platform and architecture, digests of inputs."""

from __future__ import annotations

from enum import StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.resolution import Resolution


@dataclass(frozen=True, slots=True)
class LockedParent:
    """The image that the packages of a section are added to.

    Its recipe's name, its manifest's digest, and its config's, which does not depend on the layers' compression and
    identifies the image.
    """

    recipe: str
    digest: Digest
    config: Digest


@dataclass(frozen=True, slots=True)
class LockSection:
    """The resolution for one platform and architecture, with the digests of its inputs.

    Where there is a `parent` the resolution is what is added to it, and the parent's own lock says what is in it.
    `inputs` maps the name of every input that the resolution depends on (`requests`, `repositories`, `keys`,
    `flags`, …) to its digest, so that a stale lock can say which one differs. `build_time` is the newest BUILDTIME
    among the packages and the parent, in seconds since the epoch. `accounts` holds the numbers that were allocated
    for owners that nothing else numbers, (kind, name, number) with kind `user` or `group`. `keys` are the
    fingerprints of the keys that sign packages in this section. `metadata` is repository id → digest of its
    repomd.xml as it was when the packages were resolved, sorted: it says where they come from, and another repomd.xml
    today does not make the lock stale. A lock of format 1 has none. `written_as` is the digest with which the section
    was written, if it is not that of the section as it was read: then it was edited or merged since.
    """

    resolution: Resolution
    inputs: tuple[tuple[str, Digest], ...]
    build_time: int
    accounts: tuple[tuple[str, str, int], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()
    metadata: tuple[tuple[str, Digest], ...] = ()
    parent: LockedParent | None = None
    written_as: Digest | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of one recipe: a section per platform and architecture, sorted."""

    recipe: str
    sections: tuple[LockSection, ...]

    def section(self, platform: str, arch: str) -> LockSection | None:
        """Return the section for a platform and architecture, if there is one."""
        for section in self.sections:
            if (section.resolution.platform, section.resolution.arch) == (platform, arch):
                return section
        return None


class LockMode(StrEnum):
    """Modes of a build: use the lock or renew it as needed, insist on it, or renew it."""

    DEFAULT = "default"
    LOCKED = "locked"
    UPGRADE = "upgrade"
