"""The folder whose disk is full, for an error that names no file."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path


def with_full_disk(error: Exception, store: Path) -> Exception:
    """Return the error, of a full disk with the store or the working directory as its file.

    It is the one with less space, and only where the error names no file. A write that fails does not name its file,
    and the two are where relbuild writes most.
    """
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or error.filename is not None:
        return error
    folders = [folder for folder in (store, Path.cwd()) if folder.is_dir()]
    fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
    return OSError(error.errno, error.strerror, str(fullest))
