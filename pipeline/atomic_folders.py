"""Write folders atomically: draft beside the target, sync, exchange; clean up old drafts.

A target is either absent or complete. A draft's folder is locked while its process lives, so that drafts of killed
processes are recognised and removed by the next run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def folder_draft(target: Path) -> Iterator[Path]:
    """Make a new folder beside `target`; if it is still there at the end, it is removed."""
    while True:
        draft = target.parent / f"{_prefix(target)}{secrets.token_hex(4)}"
        draft.mkdir()
        handle = os.open(draft, _FOLDER)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Before it was locked, another process may have removed it as a killed process's draft.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(draft.stat(), os.fstat(handle)):
                break
        os.close(handle)
    try:
        yield draft
    finally:
        os.close(handle)
        _remove(draft)


def require_writable_folder(folder: Path) -> None:
    """Raise OSError if the system refuses a new file in `folder`.

    One that is missing is judged by the nearest folder above. Nothing is left there. What cannot be tried so, as on a
    file system without files that have no name, is no error.
    """
    above = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    try:
        os.close(os.open(above, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in _REFUSALS:
            error.filename = os.fspath(folder)
            raise


def sweep_folder_drafts(target: Path, *more: Path) -> None:
    """Remove drafts of `target` whose makers were killed or could not remove them.

    `more` are other targets beside it.
    """
    if not target.parent.is_dir():
        return
    prefixes = tuple(map(_prefix, (target, *more)))
    for path in target.parent.iterdir():
        if not path.name.startswith(prefixes):
            continue
        if path.is_symlink():  # That which was in a target's place, and cannot be locked.
            _remove(path)
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, _FOLDER)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def put_folder(draft: Path, target: Path) -> None:
    """Sync all files in `draft` and move it to `target`.

    A former `target` is then at `draft`: a folder, or a symbolic link, whose own target stays as it is. Raises OSError,
    NotADirectoryError for anything else there.
    """
    _sync_tree(draft)
    _exchange(draft, target)
    _sync(target.parent)


def remove_folder(target: Path) -> None:
    """Remove a folder or a symbolic link in one step.

    It is complete until it is absent, also where this process is killed. A missing one is no error. Raises OSError,
    NotADirectoryError for anything else there.
    """
    if not os.path.lexists(target):
        return
    with folder_draft(target) as draft:
        _require_folder(target)
        target.rename(draft / target.name)


def _prefix(target: Path) -> str:
    return f".{target.name}.draft-"


def _exchange(draft: Path, target: Path) -> None:
    if not os.path.lexists(target):
        draft.rename(target)
        return
    _require_folder(target)
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(draft), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    # Some file systems cannot exchange: for a moment there is no target, but never an incomplete one.
    old = draft.with_name(f"{draft.name}.old")
    target.rename(old)
    draft.rename(target)
    _remove(old)


def _require_folder(target: Path) -> None:
    """Raise NotADirectoryError for what is neither a folder nor a symbolic link."""
    if not stat.S_ISDIR(target.lstat().st_mode) and not target.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(target))


def _remove(path: Path) -> None:
    """Remove a folder as far as that can be, or a symbolic link and not what it leads to."""
    if path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(path, name))
        _sync(Path(path))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no sync for folders
            error.filename = os.fspath(path)
            raise
    finally:
        os.close(handle)
