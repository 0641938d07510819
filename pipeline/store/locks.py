"""Lock files and locked temporary folders, and removal of those that killed processes left.

A killed process's file is recognised because nobody holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.store.store_folders import READ_ONLY_ERRNOS

SWEEP_AGE = 30.0
"""Age in seconds up to which a temporary file is not removed: its owner may not have locked it yet."""


def hold_lock(path: Path) -> int:
    """Lock a file, which is made if missing; return the file descriptor that holds the lock.

    `remove_unheld` may remove the file between opening and locking it: then it is made again.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if is_named(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_named(handle: int, path: Path) -> bool:
    """Return whether the file at `path` is the open one; False if it was removed or made again."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def named_lock(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` (any text) within the block, by a file in `folder`.

    There is no lock where the file cannot be written.
    """
    path = folder / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
    try:
        handle = hold_lock(path)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


def remove_unheld(path: Path) -> bool:
    """Remove a lock file if nobody holds its lock; return whether it was removed.

    One that was removed and made again since it was opened is left: another process may hold the new one's lock.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_named(handle, path):
                path.unlink()  # While it is locked: a process that waits for it sees that it is gone, makes another.
                return True
        finally:
            os.close(handle)
    return False


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make and lock a temporary folder in `parent` for the time of the block.

    It is removed at its end, or by `sweep_temporary` if this process is killed.
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
    """Remove old temporary files and folders that no process has locked."""
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
