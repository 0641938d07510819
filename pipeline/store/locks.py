"""Locks, and the folders of work in flight.

What a killed process leaves is known by nobody holding its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SWEEP_AGE = 30.0
"""Seconds: far more than passes between making a temporary file and locking it."""


def hold_lock(path: Path) -> int:
    """Return a handle that holds the lock of a file.

    `remove_unheld` may take a file away between opening and locking it: then it is made again.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if path.lstat().st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def remove_unheld(path: Path) -> bool:
    """Remove the file of a lock if nobody holds it, and tell whether that was so."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()  # While it is held: whoever waits for it sees that it is gone, and makes another.
            return True
        finally:
            os.close(handle)
    return False


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a fresh folder in `parent`, for the time of the block.

    It is removed with the block, or by `sweep` if this process is killed.
    """
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}-"))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def sweep_temporary(folder: Path) -> None:
    """Remove temporary files and folders that no living process holds a lock on.

    The youngest are spared: their owner may be about to lock them.
    """
    spared = time.time() - SWEEP_AGE
    for path in folder.glob("*"):
        try:
            if path.lstat().st_mtime > spared:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(handle)
