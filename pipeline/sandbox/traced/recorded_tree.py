"""An image's tree on disk, owned by the user, with the table of owners and modes."""

from __future__ import annotations

import os
import secrets
import stat
from collections import Counter
from dataclasses import field
from pathlib import Path

from pipeline.clone import clone_file
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.traced.inode_records import InodeRecord, InodeRecords, real_mode


@dataclass(slots=True)
class RecordedTree:
    """The tree at `root`, its records, and the paths that were changed in it.

    `changed` has every path that an overlay over the layers would have in its upper directory, and may have more.
    """

    root: Path
    records: InodeRecords
    changed: set[str] = field(default_factory=set)

    def created(self, path: str, record: InodeRecord) -> None:
        """Record a new file at a path in the image."""
        self.records.created(os.lstat(self.root / path), record)
        self.changed.add(path)

    def forget(self, path: str) -> None:
        """Forget the records of all files that are gone without the names at a path and below it.

        It is called before these are removed, while no command runs.
        """
        host = self.root / path
        if not os.path.lexists(host):
            return
        names: Counter[tuple[int, int]] = Counter()
        for place in (host, *(host.rglob("*") if host.is_dir() and not host.is_symlink() else ())):
            status = place.lstat()
            key = (status.st_dev, status.st_ino)
            names[key] += 1
            if stat.S_ISDIR(status.st_mode) or names[key] >= status.st_nlink:
                self.records.removed(status)
        self.records.purge()

    def touch(self, path: str) -> None:
        """Take note of a change at a path, and of what is below it."""
        self.changed.add(path)
        host = self.root / path
        if host.is_dir() and not host.is_symlink():
            self.changed.update(str(inner.relative_to(self.root)) for inner in host.rglob("*"))

    def copy_up(self, path: str, status: os.stat_result) -> os.stat_result:
        """Make a file ready for a change, and return its status.

        Of a file of the layers with several names, only this name is to be changed, as in an overlay: it gets a copy.
        """
        self.changed.add(path)
        if (status.st_dev, status.st_ino) not in self.records.lower or status.st_nlink < 2:
            return status
        record = self.records.of(status)
        place = self.root / path
        copy = place.with_name(f".relbuild-{secrets.token_hex(8)}")
        if not stat.S_ISREG(status.st_mode):
            return status
        with place.open("rb") as source, copy.open("xb") as target:
            clone_file(source, target)
        copy.chmod(real_mode(record.mode, directory=False))
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        copy.rename(place)
        self.created(path, record)
        return os.lstat(place)

    def set_mode(self, path: str, status: os.stat_result, mode: int) -> None:
        """Change the permission bits of a file (not a symlink)."""
        status = self.copy_up(path, status)
        self.records.change(status, mode=mode & 0o7777)
        directory = stat.S_ISDIR(status.st_mode)
        real = real_mode(mode, directory=directory)
        if stat.S_IMODE(status.st_mode) != real:
            (self.root / path).chmod(real)

    def set_owner(self, path: str, status: os.stat_result, uid: int, gid: int) -> None:
        """Change the owners of a file, -1 for one that stays, with what chown(2) takes away."""
        status = self.copy_up(path, status)
        record = self.records.of(status)
        self.records.set(status, owned_by(record, uid, gid, keeps_bits=not stat.S_ISREG(status.st_mode)))


def owned_by(record: InodeRecord, uid: int, gid: int, *, keeps_bits: bool) -> InodeRecord:
    """Return a record after chown(2); without `keeps_bits`, set-id bits and capabilities go."""
    mode, xattrs = record.mode, record.xattrs
    if not keeps_bits:
        mode &= ~stat.S_ISUID
        if mode & stat.S_IXGRP:
            mode &= ~stat.S_ISGID
        xattrs = tuple(one for one in xattrs if one[0] != "security.capability")
    return InodeRecord(mode, record.uid if uid < 0 else uid, record.gid if gid < 0 else gid, xattrs)
