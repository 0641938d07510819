"""Ways out of writes that the system refused: which file it was, where there is room."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from pipeline.cli.standard_streams import STDOUT
from pipeline.system_errors import FULL_DISK, full_disk_error, refused_store_error

_REFUSED = frozenset({errno.EACCES, errno.EROFS})


def with_way_out(error: Exception, store: Path | None) -> Exception:
    """Return the error of a refused write as relbuild's own, with a file and a hint.

    That is the error of a full disk, and of a store that cannot be written. Others are returned as they are. `store` is
    the store's folder, None for a command that has no `--store`.
    Where the error of a full disk names no file it gets the store or the working directory, whichever has less space: a
    write that fails does not name its file, and the two are where relbuild writes most.
    """
    if not isinstance(error, OSError) or error.filename == STDOUT:
        return error
    if error.errno in FULL_DISK:
        if error.filename is None:
            folders = [folder for folder in (store, Path.cwd()) if folder is not None and folder.is_dir()]
            fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
            error = OSError(error.errno, error.strerror, str(fullest))
        told = full_disk_error(error, store)
    elif store is not None and _is_of_store(error, store):
        told = refused_store_error(error)
    else:
        return error
    told.__cause__ = error
    return told


def _is_of_store(error: OSError, store: Path) -> bool:
    named = error.filename
    return error.errno in _REFUSED and isinstance(named, str) and _leads_to(Path(named), store)


def _leads_to(path: Path, store: Path) -> bool:
    """Return whether a path is the store's, in it, or one of the folders that it is in."""
    path, store = path.absolute(), store.absolute()
    return path.is_relative_to(store) or store.is_relative_to(path)
