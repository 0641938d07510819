"""The table, by inode, of owners, modes and attributes that files have in the image."""

from __future__ import annotations

import os
import stat
from dataclasses import field, replace

from pipeline.lazy_dataclasses import dataclass

_OWNER = stat.S_IRUSR | stat.S_IWUSR
_PROGRAM = 0o111
_NOBODY = 65534
"""The ID that a user namespace shows for one that it does not map (kernel.overflowuid)."""


@dataclass(frozen=True, slots=True)
class InodeRecord:
    """A file's twelve permission bits, numeric owners and extended attributes in the image."""

    mode: int
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class InodeRecords:
    """The records of a tree on the file system `device`.

    Files of that file system without a record are root's. `user` is who runs relbuild: its files elsewhere look like
    root's. `lower` are files of the layers that have several names, of which one is to be changed alone, and
    directories of the layers.
    """

    device: int
    user: int
    known: dict[tuple[int, int], InodeRecord] = field(default_factory=dict)
    lower: set[tuple[int, int]] = field(default_factory=set)
    _gone: set[tuple[int, int]] = field(default_factory=set)

    def of(self, status: os.stat_result) -> InodeRecord:
        """Return the record of the file with this status."""
        found = self.known.get((status.st_dev, status.st_ino))
        if found is not None:
            return found
        mode = stat.S_IMODE(status.st_mode)
        if status.st_dev == self.device:
            return InodeRecord(mode)
        # As in a user namespace: what is the user's own is root's there, and anything else is nobody's.
        own = status.st_uid == self.user and not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode))
        return InodeRecord(mode) if own else InodeRecord(mode, _NOBODY, _NOBODY)

    def created(self, status: os.stat_result, record: InodeRecord) -> None:
        """Record what a new file has; its inode may have been another's."""
        key = (status.st_dev, status.st_ino)
        self.lower.discard(key)
        self._gone.discard(key)
        self.known[key] = record

    def removed(self, status: os.stat_result) -> None:
        """Take note that a file has no name any more.

        It may be open still, and has its record until `purge`.
        """
        self.lower.discard((status.st_dev, status.st_ino))
        self._gone.add((status.st_dev, status.st_ino))

    def purge(self) -> None:
        """Forget the records of removed files."""
        for key in self._gone:
            self.known.pop(key, None)
        self._gone.clear()

    def set(self, status: os.stat_result, record: InodeRecord) -> None:
        """Record what the file with this status has."""
        self.known[status.st_dev, status.st_ino] = record

    def change(self, status: os.stat_result, **changes: int | tuple[tuple[str, bytes], ...]) -> None:
        """Change fields of a file's record."""
        self.set(status, replace(self.of(status), **changes))  # type: ignore[arg-type]

    def as_in_image(self, status: os.stat_result) -> tuple[int, int, int]:
        """Return mode (with the file's kind), user and group as in the image."""
        record = self.of(status)
        return stat.S_IFMT(status.st_mode) | record.mode, record.uid, record.gid


def real_mode(mode: int, *, directory: bool) -> int:
    """Return the permission bits on disk of a file that has `mode` in the image.

    Its owner on disk, whoever runs relbuild, may do what the image's root may: read and write it, and execute it if
    anybody may.
    """
    return (mode & 0o777) | _OWNER | (stat.S_IXUSR if directory or mode & _PROGRAM else 0)
