"""The file whose disk is full, also where the error names none, and what frees space there."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.cli.standard_streams import STDOUT
from pipeline.system_errors import FULL_DISK, full_disk_error


def with_full_disk(error: Exception, store: Path) -> Exception:
    """Return the error of a full disk as relbuild's own, with a file and a hint.

    Others are returned as they are.
    Where the error names no file it gets the store or the working directory, whichever has less space: a write that
    fails does not name its file, and the two are where relbuild writes most.
    """
    if not isinstance(error, OSError) or error.errno not in FULL_DISK or error.filename == STDOUT:
        return error
    if error.filename is None:
        folders = [folder for folder in (store, Path.cwd()) if folder.is_dir()]
        fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
        error = OSError(error.errno, error.strerror, str(fullest))
    told = full_disk_error(error, store)
    told.__cause__ = error
    return told
