"""Room for what a build session writes.

A file system of its own in a sparse file, as volumes are: the kernel refuses what goes beyond, also a file that is
allocated without being written. That is no slower than the store's file system (it has no journal and no barriers), and
how full it is can be told without looking at every file. Where there are no loop devices, room is a directory that is
looked at again and again: the more often the sooner it could be full.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.sandbox import kernel
from pipeline.sandbox.mount_namespace import MountNamespace
from pipeline.sandbox.volumes import VOLUME_MOUNT_OPTIONS, Volumes

_SELDOM, _OFTEN = 1.0, 0.05
"""Seconds between looks, at the most and at the least."""

_SHARE = 0.1
"""Of the time in which the limit could be reached: a look comes at least ten times before it is. Looking itself takes
this share of the time too, unless that made it too seldom."""


_LARGE_WRITE = 4 << 20
"""Bytes that may be left when a program is told that there are none: ext4 refuses a large write as a whole."""


@dataclass(slots=True)
class DiskQuota:
    """A directory with limited disk space, made by `open_disk_quota`.

    `folder`: where there is room, for this process. `hard`: the kernel keeps to the limit.
    """

    folder: Path
    limit: int
    hard: bool
    _written: int = 0
    _looked: float = field(default_factory=time.monotonic)
    _pause: float = _OFTEN

    def full(self) -> bool:
        """Return True if next to no space is left, in bytes or in files.

        For a directory that the kernel does not limit: if more than the limit has been written.
        """
        if self.hard:
            status = os.statvfs(self.folder)
            rest = max(status.f_blocks // 100, min(_LARGE_WRITE // status.f_frsize, status.f_blocks // 4))
            return status.f_bavail < rest or status.f_ffree * 100 < status.f_files
        begun, before, since = time.monotonic(), self._written, self._looked
        self._written, self._looked = self._count(), time.monotonic()
        rate = (self._written - before) / max(self._looked - since, _OFTEN / 10)
        left = max(0, self.limit - self._written) / rate if rate > 0 else _SELDOM / _SHARE
        # No more than twice as long as before: what has been slow so far may only be beginning.
        soon = min(left * _SHARE, self._pause * 2)
        self._pause = max(_OFTEN, min(_SELDOM, max(soon, (self._looked - begun) / _SHARE)))
        return self._written > self.limit

    @property
    def pause(self) -> float:
        """Seconds until the usage is to be checked again.

        A full file system harms nobody, so its writer can wait.
        """
        return _SELDOM if self.hard else self._pause

    def _count(self) -> int:
        """Bytes on disk, counted until it is more than the limit."""
        total = 0
        for path, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(f"{path}/{name}").st_blocks * 512
            if total > self.limit:
                break
        return total


@contextlib.contextmanager
def open_disk_quota(folder: Path, limit: int, mntns: MountNamespace) -> Iterator[DiskQuota]:
    """Room for `limit` bytes in `folder`, for as long as the block lasts."""
    with contextlib.closing(Volumes(folder)) as made:
        volume = made.volume("/", limit)
        if volume.device is None:
            yield DiskQuota(volume.folder, limit, hard=False)
            return
        disk = mntns.folder("disk", mode=0o700)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        mntns.call(kernel.mount, str(volume.device), str(disk), "ext4", flags, VOLUME_MOUNT_OPTIONS)
        handle = mntns.call(os.open, disk, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor, because the mount is nowhere but in the private mount namespace.
            yield DiskQuota(Path(f"/proc/{os.getpid()}/fd/{handle}"), limit, hard=True)
        finally:
            os.close(handle)
