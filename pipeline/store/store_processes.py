"""The processes that use a store, and since when.

What they may be using is not collected from under them.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import threading
from pathlib import Path

_entered: dict[Path, tuple[int, Path, int]] = {}
"""Stores in use, by root: the process that entered, its file, and the handle with its lock."""

_guard = threading.Lock()


def register_process(root: Path) -> None:
    """Note that this process uses the store at `root` until it ends.

    A store that cannot be written to is not collected from.
    """
    with _guard:
        known = _entered.get(root)
        if known is not None and known[0] == os.getpid() and known[1].exists():
            return
        path = root / "users" / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            handle = _entry(path)
        except OSError:
            return
        if not _entered:
            atexit.register(_leave)
        _entered[root] = (os.getpid(), path, handle)


def _entry(path: Path) -> int:
    """Return a handle that holds the lock of the file.

    The file is made again if it was taken for a left one before it was held.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            return handle
        os.close(handle)


def oldest_other_process(root: Path) -> float | None:
    """Return the time at which the first of the other processes that use the store began.

    It is in seconds since the epoch; None if there are none. Files of those that have ended are removed.
    """
    with _guard:
        own = _entered.get(root)
    began: list[float] = []
    for path in (root / "users").iterdir():
        if own is not None and path == own[1]:
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                began.append(os.fstat(handle).st_mtime)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                began.pop()
            finally:
                os.close(handle)
    return min(began, default=None)


def _leave() -> None:
    for pid, path, handle in _entered.values():
        if pid == os.getpid():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                os.close(handle)
