"""Make a store's folders; refuse a store with a symlink or file in place of a folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.store.seal_key import KEY_FILE, store_of_another
from pipeline.user_home import require_home

STORE_FOLDERS = ("blobs", "results", "trees", "metadata", "locks", "tmp", "users", "quarantine")

_OWN_FOLDERS = (*STORE_FOLDERS, "instances", "sandbox", "volumes")
"""Folders in which relbuild removes files; the last three are made when they are needed."""

READ_ONLY_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of writing to a store that is read-only for this process."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return relbuild's folder in the user's cache directory (XDG Base Directory Specification).

    A relative path in the variable is ignored, as the specification has it. Raises EnvironmentLacking `home-unknown`.
    """
    cache = Path(environment.get("XDG_CACHE_HOME") or "")
    return (cache if cache.is_absolute() else require_home(environment) / ".cache") / "relbuild"


def ignored_cache_warning(environment: Mapping[str, str]) -> str:
    """Return the warning of a cache directory that `cache_folder` ignores; "" if there is none.

    The store is then another one than that whose path the variable seems to say, and knows nothing of former builds.
    """
    given = environment.get("XDG_CACHE_HOME") or ""
    if not given or Path(given).is_absolute():
        return ""
    return (
        f"XDG_CACHE_HOME is '{given[:200]}', which is ignored: the XDG specification wants an absolute path; "
        "the store is in ~/.cache; to have it elsewhere, give an absolute path, or --store or RELBUILD_STORE"
    )


def require_own_store(root: Path, given: bytes | None) -> None:
    """Refuse a store of another user before anything is written in it, unless a key is `given`.

    Root could: its key and its results would shut that user out. A store is the user's to whom its key belongs. While
    it has none, the user's to whom both its folder and that of its blobs belong: a volume may be root's, and blobs that
    a cache brought may be anybody's. It need not exist. Raises UsageError `store-of-another`.
    """
    if given is not None:
        return
    try:
        folder = root.stat()
        key = _status(root / KEY_FILE)
        blobs = _status(root / "blobs")
    except OSError:
        return  # Missing, or one that cannot be entered: that is told where its folders are made.
    if key is not None:
        if stat.S_ISREG(key.st_mode) and key.st_uid != os.geteuid():
            raise store_of_another(root, key.st_uid)
    elif blobs is not None and os.geteuid() != folder.st_uid == blobs.st_uid and os.access(root, os.W_OK):
        raise store_of_another(root, folder.st_uid)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def make_store_folders(root: Path) -> None:
    """Make a store's root and its folders where they are missing.

    An existing read-only store may lack some. Raises EnvironmentLacking `no-permission`.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in STORE_FOLDERS:
            _make_folder(root / name)
    except PermissionError as error:
        raise EnvironmentLacking(
            "no-permission",
            f"the store directory cannot be created: {error}",
            place=str(root),
            hint="choose another directory with --store",
        ) from error


def require_own_folders(root: Path) -> None:
    """Refuse a store in which a symlink or file is in place of a folder.

    A symlink, for example from an unpacked CI cache, would lead deletions elsewhere. Raises EnvironmentLacking
    `store-not-own`.
    """
    for name in _OWN_FOLDERS:
        path = root / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise EnvironmentLacking(
                "store-not-own",
                "this path in the store must be a directory",
                place=str(path),
                hint="remove it; to keep the store elsewhere, use --store",
            )


def require_outside_stores(folder: Path) -> None:
    """Refuse a folder for layouts that is a store, or in one of a store's folders.

    `store fsck` would put them aside as damage. It need not exist; symbolic links are followed. Raises UsageError
    `output-in-store`.
    """
    place = folder.resolve()
    for root in (place, *place.parents):
        inner = place.relative_to(root).parts
        if (not inner or inner[0] in _OWN_FOLDERS) and all((root / name).is_dir() for name in STORE_FOLDERS):
            raise UsageError(
                "output-in-store",
                f"'{folder}' is in the store '{root}', where only relbuild keeps files",
                place=str(folder),
                hint="choose another --output",
            )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True, mode=0o700)
    except FileExistsError:
        return  # Not a folder: `require_own_folders` reports it.
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS or not (path.parent / "blobs").exists():
            raise
