"""Traces of a container's processes in its /dev and its network, seen from outside it."""

from __future__ import annotations

import os
import stat

from pipeline.lazy_dataclasses import dataclass

_FOLDERS = ("dev", "dev/shm")
"""Memory file systems of the container alone that its processes can write to."""


@dataclass(frozen=True, slots=True)
class LeftState:
    """Stamps of /dev, /dev/shm and their files, and the number of closed connections.

    A closed connection keeps its address for a minute.
    """

    files: tuple[tuple[object, ...], ...]
    closed_connections: int


def left_state(pid: int, before: LeftState | None = None) -> LeftState | None:
    """Read what the container of the process `pid` has of it; None if the process is gone.

    The files in a folder that is not as `before` are not looked at: it may have any number of them.
    """
    try:
        folders = tuple(_stamp(f"/proc/{pid}/root/{name}") for name in _FOLDERS)
        if before is not None and folders != before.files[: len(folders)]:
            return LeftState(folders, 0)
        paths = [entry.path for name in _FOLDERS for entry in os.scandir(f"/proc/{pid}/root/{name}")]
        return LeftState(folders + tuple(map(_stamp, sorted(paths))), _closed_connections(pid))
    except OSError:
        return None


def _stamp(path: str) -> tuple[object, ...]:
    """Return what a change of a file or folder changes; a device's times are the machine's."""
    found = os.lstat(path)
    times = () if stat.S_ISCHR(found.st_mode) else (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
    return path.rpartition("/root/")[2], found.st_mode, found.st_uid, found.st_gid, *times


def _closed_connections(pid: int) -> int:
    """Return the number of its network's connections in TIME-WAIT; 0 without IPv4.

    See /proc/net/sockstat in proc(5).
    """
    try:
        with open(f"/proc/{pid}/net/sockstat", encoding="ascii") as file:  # noqa: PTH123 - a fraction of the time
            words = next((line.split() for line in file if line.startswith("TCP:")), [])
    except FileNotFoundError:
        return 0
    return int(words[words.index("tw") + 1]) if "tw" in words[:-1] else 0
