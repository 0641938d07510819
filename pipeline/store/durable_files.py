"""Write a file so that it survives a power cut: sync it, rename it, sync its folder.

Without the first sync, a power cut can leave a name without its content (rename(2) guarantees no order); without the
second, the name can be lost (fsync(2): a folder's entry needs an fsync of its own).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SPARED = 30.0
"""Age in seconds up to which a draft (temporary file) is not removed: its writer may not have locked it yet."""


@contextlib.contextmanager
def failing_at(path: Path) -> Iterator[None]:
    """Add `path` to an OSError within the block that names no file, as of write and fsync."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def sync_file(file: BinaryIO) -> None:
    """Flush a file and sync it to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk, if the file system can sync folders (else EINVAL)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            error.filename = os.fspath(folder)
            raise
    finally:
        os.close(handle)


def write_result_file(path: Path, data: bytes, *, drafts: Path, sync: bool) -> None:
    """Write `data` to `path` in one step, replacing what was there.

    The draft is made in the folder `drafts`, and locked. Without `sync`, a crash of the machine may lose it. One that
    could not be written is left to be swept.
    """
    draft = f"{os.fspath(drafts)}/file-{os.urandom(12).hex()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with failing_at(path):
            fcntl.flock(handle, fcntl.LOCK_EX)
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            if sync:
                os.fsync(handle)
        os.rename(draft, path)  # noqa: PTH104  a path of its own costs as much
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` atomically and durably, replacing what was there.

    Drafts of killed writers of the same file are removed.
    """
    _sweep(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        error.filename = os.fspath(path)  # The draft's name says nothing to anybody.
        raise
    draft = Path(name)
    try:
        with failing_at(path), os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            os.fchmod(file.fileno(), mode)
            sync_file(file)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sweep(path: Path) -> None:
    """Remove old drafts of `path` that no process has locked."""
    draft = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}")
    for other in path.parent.iterdir():
        # Unreadable ones, and those removed meanwhile, are left to others.
        with contextlib.suppress(OSError):
            if draft.fullmatch(other.name) and other.lstat().st_mtime < time.time() - _SPARED:
                with other.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    other.unlink()
