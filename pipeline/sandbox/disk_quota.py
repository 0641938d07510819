"""Disk space limit for a build session: a file system of its own, or polled disk usage.

The file system is in a sparse file, as volumes are: the kernel refuses writes beyond its size, also files that are
allocated without being written. It is no slower than the store's file system (it has no journal and no barriers), and
its usage is known without reading every file's size. Where there are no loop devices, the space is a directory whose
files are counted repeatedly: the sooner it could be full, the more often.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel
from pipeline.sandbox.mount_namespace import MountNamespace
from pipeline.sandbox.volumes import VOLUME_MOUNT_OPTIONS, Volumes

_PAUSE_MAX, _PAUSE_MIN = 1.0, 0.05
"""Seconds between counts, at the most and at the least."""

_SHARE = 0.1
"""Share of the time in which the limit could be reached, after which usage is counted again: at least ten times before.
Counting itself takes at most this share of the time, unless the pause would exceed the maximum."""


_LARGE_WRITE = 4 << 20
"""Bytes that may be free when a write fails for lack of space: ext4 refuses a large write as a whole."""


@dataclass(slots=True)
class DiskQuota:
    """A directory with limited disk space, made by `open_disk_quota`.

    `folder`: the directory, a path for this process. `hard`: the kernel enforces the limit.
    """

    folder: Path
    limit: int
    hard: bool
    _written: int = 0
    _looked: float = field(default_factory=time.monotonic)
    _pause: float = _PAUSE_MIN

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
        rate = (self._written - before) / max(self._looked - since, _PAUSE_MIN / 10)
        left = max(0, self.limit - self._written) / rate if rate > 0 else _PAUSE_MAX / _SHARE
        # At most twice the last pause: a command that writes little at first may write much soon.
        soon = min(left * _SHARE, self._pause * 2)
        self._pause = max(_PAUSE_MIN, min(_PAUSE_MAX, max(soon, (self._looked - begun) / _SHARE)))
        return self._written > self.limit

    @property
    def pause(self) -> float:
        """Seconds until the usage is to be checked again.

        Where the kernel enforces the limit, it is only for reporting and can be seldom.
        """
        return _PAUSE_MAX if self.hard else self._pause

    def _count(self) -> int:
        """Return the bytes on disk, counted until they exceed the limit."""
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
    """Make a directory limited to `limit` bytes in `folder`, for as long as the block lasts."""
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
            # Through the descriptor, because the mount is visible only in the private mount namespace.
            yield DiskQuota(Path(f"/proc/{os.getpid()}/fd/{handle}"), limit, hard=True)
        finally:
            os.close(handle)
