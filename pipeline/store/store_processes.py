"""Register the processes that use a store, so that garbage collection spares their files."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import threading
import time
from pathlib import Path

from pipeline.store.locks import hold_lock, is_named

_entered: dict[Path, tuple[int, Path, int]] = {}
"""Root of a store → process that registered, its file, and the descriptor that holds the file's lock."""

_guard = threading.Lock()


def register_process(root: Path) -> None:
    """Register this process at the store at `root` until it ends.

    Nothing is done for a store that is not writable: nobody collects garbage there.
    """
    with _guard:
        known = _entered.get(root)
        if known is not None and known[0] == os.getpid() and known[1].exists():
            return
        path = root / "users" / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            handle = hold_lock(path)
        except OSError:
            return
        if not _entered:
            atexit.register(_leave)
        _forget_removed(root)
        _entered[root] = (os.getpid(), path, handle)


def _forget_removed(entered: Path) -> None:
    """Close the handles of stores that were removed, and of the one that is entered again.

    A process that was forked from another closes its copy of the handle; the other keeps its lock.
    """
    for root, (_, path, handle) in list(_entered.items()):
        if root == entered or _is_gone(path):
            del _entered[root]
            os.close(handle)


def _is_gone(path: Path) -> bool:
    """Tell whether a file was removed; one that cannot be looked at may be there."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def oldest_other_process(root: Path) -> float | None:
    """Return when the first of the other processes registered that use the store.

    Seconds since the epoch; None if there are none. Not later than now: a process may have registered before the clock
    was set back, and what it uses since then is older than its file. Files of processes that have ended are removed.
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
                if is_named(handle, path):
                    path.unlink()
                elif os.path.lexists(path):
                    continue  # Its process made it again: it is running.
                began.pop()
            finally:
                os.close(handle)
    return min((*began, time.time())) if began else None


def _leave() -> None:
    while _entered:
        _, (pid, path, handle) = _entered.popitem()
        if pid == os.getpid():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                os.close(handle)
