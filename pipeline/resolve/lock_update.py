"""Put sections into a lock file that others may write at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.digest import Digest, digest_file
from pipeline.model.lock import Lock
from pipeline.resolve.lockfile import read_lock, write_lock

_LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for who locks the folder: another relbuild needs some milliseconds."""
_PAUSE: Final = 0.005


def put_sections(path: Path, lock: Lock) -> Digest:
    """Put a lock's sections into the file at `path`, beside those of others; return its digest.

    Those of other platforms and architectures stay as they are in the file now. Its folder is locked meanwhile, so that
    none is lost of who puts another one there at the same time. Nothing is written if the file has these sections.
    Raises as `read_lock`, and OSError.
    """
    ours = {(one.resolution.platform, one.resolution.arch) for one in lock.sections}
    with _locked_folder(path.parent):
        former = read_lock(path)
        others = [
            one
            for one in (former.sections if former else ())
            if (one.resolution.platform, one.resolution.arch) not in ours
        ]
        whole = Lock(lock.recipe, (*others, *lock.sections))
        if former is not None and set(former.sections) == set(whole.sections):
            return digest_file(path)
        return write_lock(path, whole)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder itself within the block, which leaves no file beside the recipe.

    There is no lock where the file system has no such locks, or somebody holds it for longer than is needed to write a
    file.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + _LOCK_TIMEOUT
    try:
        with contextlib.suppress(OSError):
            while not _lock(handle) and time.monotonic() < until:
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
