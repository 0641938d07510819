"""Last names of paths that system calls make, remove and rename.

The errors for them are the kernel's. A symlink at the last name is not followed, also where a slash stands behind it
(path_resolution(7)).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.sandbox.traced.call_context import AT_FDCWD, CallContext
from pipeline.sandbox.traced.tracee import TracedCall
from pipeline.sandbox.traced.tree_lookup import Place, failure

SESSION_FOLDERS: Mapping[str, int] = MappingProxyType({"run": 0o755, "tmp": 0o1777, "dev": 0o755, "proc": 0o555})
"""Directories of the root that are the session's while a command runs, and their modes.

In a container each is a file system of its own."""

_MOUNT_POINTS = frozenset({*SESSION_FOLDERS, "dev/shm"})
_NO_NAMES = ("", ".", "..")
_NOT_REMOVED = {"": errno.EBUSY, ".": errno.EINVAL, "..": errno.ENOTEMPTY}


def _entry(context: CallContext, call: TracedCall, folder: int | None, path: int) -> tuple[Place, str, bool]:
    """Look up the path in argument `path`.

    Returns also its last name, and whether a slash follows it.
    """
    name = call.text(path)
    descriptor = AT_FDCWD if folder is None else call.integer(folder)
    bare = name.rstrip("/")
    last = bare.rpartition("/")[2]
    if last in _NO_NAMES:
        place = context.lookup.find(call.tracee, descriptor, name, follow=True)
        place.existing()
        return place, last, False
    return context.lookup.find(call.tracee, descriptor, bare, follow=False), last, bare != name


def made_name(
    context: CallContext, call: TracedCall, folder: int | None, path: int, *, directory: bool = False
) -> Place:
    """Return the place of a name to be made. Raises OSError."""
    place, last, slash = _entry(context, call, folder, path)
    if last in _NO_NAMES:
        raise failure(errno.EEXIST)
    if slash and not directory and place.status is None:
        raise failure(errno.ENOENT)
    return place


def removed_name(context: CallContext, call: TracedCall, folder: int | None, path: int, *, directory: bool) -> Place:
    """Return the place of a name to be removed. Raises OSError."""
    place, last, slash = _entry(context, call, folder, path)
    if last in _NO_NAMES:
        raise failure(_NOT_REMOVED[last] if directory else errno.EISDIR)
    status = place.existing()
    if slash and not stat.S_ISDIR(status.st_mode):
        raise failure(errno.ENOTDIR)
    if directory and place.path is not None:
        require_not_mounted(place.path)
    return place


def renamed_names(
    context: CallContext, call: TracedCall, source: tuple[int | None, int], target: tuple[int | None, int]
) -> tuple[Place, Place]:
    """Return the places of a name and of its new name, each given by its arguments.

    Raises OSError.
    """
    (old, old_last, old_slash), (new, new_last, new_slash) = (_entry(context, call, *one) for one in (source, target))
    require_one_file_system(old.inside(), new.inside())
    if old_last in _NO_NAMES or new_last in _NO_NAMES:
        raise failure(errno.EBUSY)
    if (old_slash or new_slash) and not stat.S_ISDIR(old.existing().st_mode):
        raise failure(errno.ENOTDIR)
    return old, new


def require_not_mounted(path: str) -> None:
    """Raise OSError EBUSY for a path at which a container has a file system of its own."""
    if path in _MOUNT_POINTS:
        raise failure(errno.EBUSY)


def require_one_file_system(path: str, other: str) -> None:
    """Raise OSError EXDEV for names in directories of two file systems."""
    if _mounted_at(path) != _mounted_at(other):
        raise failure(errno.EXDEV)


def _mounted_at(path: str) -> str:
    """Return the mount point that the directory of a name is in, "" for the root."""
    folder = path.rpartition("/")[0]
    if folder == "dev/shm" or folder.startswith("dev/shm/"):
        return "dev/shm"
    first = folder.partition("/")[0]
    return first if first in _MOUNT_POINTS else ""
