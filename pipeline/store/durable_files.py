"""Files that are on the disk before they count.

They are synced, then renamed, then the folder that names them is synced.

Without the first a power cut can leave a name for bytes that never arrived (rename(2) orders nothing), without the
last it can take the name away again (fsync(2): the folder's entry needs an fsync of its own).
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
"""Seconds: far more than passes between making a draft and locking it."""


@contextlib.contextmanager
def failing_at(path: Path) -> Iterator[None]:
    """Name `path` in an operating-system error that comes without one.

    The errors of write and fsync come without one.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def sync_file(file: BinaryIO) -> None:
    """Sync what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk.

    A file system without a sync for folders says EINVAL.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            error.filename = os.fspath(folder)
            raise
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path`, whole or not at all, also over a power cut.

    What stood there is replaced, and what a killed writer of the same file left is removed.
    """
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
    """Remove drafts of `path` that no living process holds.

    The youngest are spared: their owner is about to hold them.
    """
    draft = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}")
    for other in path.parent.iterdir():
        # One that may not be read, or is gone by now, is somebody else's.
        with contextlib.suppress(OSError):
            if draft.fullmatch(other.name) and other.lstat().st_mtime < time.time() - _SPARED:
                with other.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    other.unlink()
