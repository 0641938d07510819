"""Ways out of writes that the system refused: which file it was, where there is room."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from pipeline.cli.standard_streams import STDOUT
from pipeline.errors import RelbuildError
from pipeline.system_errors import FULL_DISK, full_disk_error, relbuild_error

_REFUSED = frozenset({errno.EACCES, errno.EROFS})


def with_way_out(error: Exception, store: Path) -> Exception:
    """Return the error of a refused write as relbuild's own, with a file and a hint.

    That is the error of a full disk, and of a store that cannot be written. Others are returned as they are.
    Where the error of a full disk names no file it gets the store or the working directory, whichever has less space: a
    write that fails does not name its file, and the two are where relbuild writes most.
    """
    if not isinstance(error, OSError) or error.filename == STDOUT:
        return error
    if error.errno in FULL_DISK:
        if error.filename is None:
            folders = [folder for folder in (store, Path.cwd()) if folder.is_dir()]
            fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
            error = OSError(error.errno, error.strerror, str(fullest))
        told: RelbuildError | None = full_disk_error(error, store)
    elif error.errno in _REFUSED and isinstance(error.filename, str) and _leads_to(Path(error.filename), store):
        told = _store_elsewhere(error)
    else:
        return error
    if told is not None:
        told.__cause__ = error
    return told or error


def _leads_to(path: Path, store: Path) -> bool:
    """Return whether a path is the store's, in it, or one of the folders that it is in."""
    path, store = path.absolute(), store.absolute()
    return path.is_relative_to(store) or store.is_relative_to(path)


def _store_elsewhere(error: OSError) -> RelbuildError | None:
    told = relbuild_error(error)
    if told is None:
        return None
    (problem,) = told.problems
    return type(told)(
        problem.code, problem.message, place=problem.place, hint=f"{problem.hint}: for the store, with --store"
    )
