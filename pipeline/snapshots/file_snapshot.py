"""Take what files, paths and folders are, to compare it later."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Container

from pipeline.beneath.read_log import listing_digest

SMALL_FILE = 8 << 20
"""Bytes up to which a file is compared by its content; a larger one by its stamp. Hashing this takes 5 ms."""


def look_at_file(path: str) -> tuple[str, int, str] | None:
    """Return a small file's resolved path, mode and digest; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > SMALL_FILE:
            return None
        return os.path.realpath(path), found.st_mode, hashlib.file_digest(file, "sha256").hexdigest()


def look_at_path(path: str) -> tuple[int, str]:
    """Return the type of what is at a path (0: nothing) and its resolved path, "" for nothing."""
    if not os.path.lexists(path):
        return 0, ""
    try:
        return stat.S_IFMT(os.stat(path).st_mode), os.path.realpath(path)  # noqa: PTH116  ten times as fast
    except OSError:
        return -1, ""


def look_at_names(path: str) -> str:
    """Return the digest of the names in a folder, "" if it cannot be read."""
    try:
        return listing_digest(sorted(os.listdir(path)))  # noqa: PTH208  names, not paths
    except OSError:
        return ""


def file_stamp(found: os.stat_result) -> list[int]:
    """Return device, inode, size, modification and change time of a file, and its mode.

    The kernel sets the change time with every change, and nobody else can.
    """
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode]


def look_at_output(folder: str, stamped: Container[str]) -> dict[str, object]:
    """Return what is below a folder that a build wrote, by name.

    A file by its digest, or by its stamp if it is in `stamped`; a folder in it is None. What a build writes nowhere is
    -1: symlinks and other kinds of files, large documents.
    """
    found: dict[str, object] = {}
    waiting = [("", folder)]
    while waiting:
        above, place = waiting.pop()
        with os.scandir(place) as items:
            for item in items:
                name, status = f"{above}{item.name}", item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    found[name] = None
                    waiting.append((f"{name}/", item.path))
                elif stat.S_ISREG(status.st_mode) and name in stamped:
                    found[name] = file_stamp(status)
                else:
                    seen = look_at_file(item.path) if stat.S_ISREG(status.st_mode) else None
                    found[name] = seen[2] if seen is not None else -1
    return found
