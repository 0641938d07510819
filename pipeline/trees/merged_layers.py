"""Look paths up in the merged tree of an image's unpacked layers, without a mount.

What is found is what overlayfs would show.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import BuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.trees.scan import TREE_DEPTH_LIMIT, is_opaque

_LINKS_LIMIT = 40
"""Symlinks followed in one path: the kernel's own bound (path_resolution(7))."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MISSING = (errno.ENOENT, errno.ENAMETOOLONG)
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


def resolve_symlinks(path: str, link: Callable[[str], str | None]) -> str | None:
    """Resolve all symlinks of a path, the last component's too, with the image's root as `/`.

    `link` returns the target of the symlink at a canonical path, None if there is no symlink. Returns the canonical
    path, whether or not anything is there; None after too many symlinks, where the kernel finds nothing either. Raises
    BuildError `too-deep`.
    """
    done: list[str] = []
    ahead = [*reversed(path.split("/"))]
    links = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        if len(done) >= TREE_DEPTH_LIMIT:
            raise BuildError("too-deep", f"'{path}' leads to more than {TREE_DEPTH_LIMIT} directories", place=path)
        target = link("/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_LIMIT:
            return None
        if target.startswith("/"):
            done.clear()
        ahead += reversed(target.split("/"))
    return "/".join(done)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file by its name in an open directory."""

    folder: int
    name: str
    mode: int


class MergedLayers:
    """The merged tree of unpacked layers, the lowest first.

    Whiteouts, opaque directories and what is no directory hide what is lower. Directories are opened one by one, so
    that neither the length of a path nor a symlink in it matters.
    """

    def __init__(self, lowers: Sequence[Path]) -> None:
        self._lowers = tuple(lowers)
        self._links: dict[str, str | None] = {}

    def real(self, path: str) -> str | None:
        """Resolve the symlinks of a path over all layers.

        It is done as by `resolve_symlinks`. Raises BuildError `too-deep`.
        """
        return resolve_symlinks(path, self._link)

    def read(self, path: str, limit: int) -> bytes | None:
        """Read up to `limit` bytes of the regular file at a canonical path; None if there is none."""
        with self._uppermost(path) as found:
            if found is None or not stat.S_ISREG(found.mode):
                return None
            handle = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.folder)
            with os.fdopen(handle, "rb") as file:
                return file.read(limit)

    def _link(self, path: str) -> str | None:
        if path not in self._links:
            with self._uppermost(path) as found:
                link = found if found is not None and stat.S_ISLNK(found.mode) else None
                self._links[path] = os.readlink(link.name, dir_fd=link.folder) if link is not None else None
        return self._links[path]

    @contextlib.contextmanager
    def _uppermost(self, path: str) -> Iterator[_Found | None]:
        """Find what the merged tree has at a canonical path."""
        *above, name = path.split("/")
        with contextlib.ExitStack() as closing:
            for lower in reversed(self._lowers):
                folder, hides = _descend(lower, above)
                if folder is not None:
                    closing.callback(os.close, folder)
                status = _status(name, folder) if folder is not None else None
                if folder is not None and status is not None:
                    whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                    yield None if whiteout else _Found(folder, name, status.st_mode)
                    return
                if hides:
                    break
            yield None


def _descend(root: Path, names: Sequence[str]) -> tuple[int | None, bool]:
    """Open a directory of one layer; None if it has none.

    Also returns whether lower layers' is hidden, by an opaque directory or by something that is no directory.
    """
    folder, hides = os.open(root, _FOLDER), False
    for name in names:
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except OSError as error:
            if error.errno not in (*_MISSING, *_IN_THE_WAY):
                raise
            return None, hides or error.errno in _IN_THE_WAY
        finally:
            os.close(folder)
        folder, hides = inner, hides or is_opaque(inner)
    return folder, hides


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name or ".", dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
