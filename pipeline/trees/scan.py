"""Scan a directory on disk into a tree, overlayfs whiteouts included."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path

from pipeline.digest import digest_file
from pipeline.errors import BuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import (
    Entry,
    EntryKind,
    Tree,
    kind_of,
)
from pipeline.trees.capabilities import CAPABILITY_XATTR, as_revision_2

TREE_DEPTH_LIMIT = 512
"""Directories within one another: PATH_MAX allows four times as many, of one letter each."""

_OVERLAY = ("trusted.overlay.", "user.overlay.")
_FOREIGN = ("security.selinux", "security.ima", "security.evm", "security.apparmor", "system.", "trusted.")


def scan_directory(root: Path, *, shift: int = 0, contents: bool = True) -> Tree:
    """Read the directory `root`, without following symlinks, into a tree.

    The root itself is not an entry. `shift` is subtracted from owners' IDs. With `contents`, files' digests are
    computed. Of hard links the first path is the file. An overlay's whiteouts (character device 0:0) and opaque
    directories become entries of kinds WHITEOUT (at the path that is hidden) and OPAQUE (at the directory's path with
    `/` at its end). Raises BuildError `socket` for a socket, `too-deep`.
    """
    found = _Scan(root, shift, contents)
    found.walk("", 0)
    return Tree.of(found.entries)


def read_xattrs(path: str | int) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes that belong to an image, sorted.

    They are capabilities (as revision 2) and `user.*`. Attributes of the kernel, its security modules and overlayfs are
    left out.
    """
    found = []
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith((*_OVERLAY, *_FOREIGN)):
                found.append((name, os.getxattr(path, name, follow_symlinks=False)))
    return image_xattrs(found)


def image_xattrs(attributes: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    """Return those of extended attributes that belong to an image, sorted."""
    return tuple(
        sorted(
            (name, as_revision_2(value) if name == CAPABILITY_XATTR else value)
            for name, value in attributes
            if not name.startswith((*_OVERLAY, *_FOREIGN))
        )
    )


def is_opaque(path: str | int) -> bool:
    """Tell whether an overlay's directory hides what is beneath it."""
    for prefix in _OVERLAY:
        with contextlib.suppress(OSError):
            # A descriptor is of the directory itself, and takes no such flag.
            if os.getxattr(path, f"{prefix}opaque", follow_symlinks=isinstance(path, int)) in (b"y", b"x"):
                return True
    return False


@dataclass(slots=True)
class _Scan:
    root: Path
    shift: int
    contents: bool
    entries: dict[str, Entry] = field(default_factory=dict)
    links: dict[tuple[int, int], str] = field(default_factory=dict)

    def walk(self, folder: str, depth: int) -> None:
        if depth > TREE_DEPTH_LIMIT:
            raise BuildError(
                "too-deep", f"directories are nested more than {TREE_DEPTH_LIMIT} deep", place=folder[:200]
            )
        with os.scandir(self.root / folder) as found:
            items = sorted(found, key=lambda item: item.name)
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            entry = self.entries[path] = self._entry(path, item)
            if entry.kind is EntryKind.DIRECTORY:
                if is_opaque(item.path):
                    self.entries[f"{path}/"] = Entry(f"{path}/", EntryKind.OPAQUE)
                self.walk(path, depth + 1)

    def _entry(self, path: str, item: os.DirEntry[str]) -> Entry:
        status = item.stat(follow_symlinks=False)
        kind = kind_of(status.st_mode)
        if kind is None:
            raise BuildError("socket", f"/{path} is a socket; images cannot contain those", place=path)
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind is EntryKind.CHARACTER and device == (0, 0):
            return Entry(path, EntryKind.WHITEOUT, mtime=int(status.st_mtime))
        link, content = "", None
        if kind is EntryKind.SYMLINK:
            link = os.readlink(item.path)  # noqa: PTH115 (an entry of scandir, not a Path)
        elif kind is EntryKind.FILE:
            first = self.links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                kind, link, content = EntryKind.HARDLINK, first, self.entries[first].content
            elif self.contents:
                content = digest_file(Path(item.path))
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid - self.shift,
            gid=status.st_gid - self.shift,
            mtime=int(status.st_mtime),
            size=status.st_size if kind in (EntryKind.FILE, EntryKind.HARDLINK) else 0,
            link=link,
            xattrs=read_xattrs(item.path),
            device=device if kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else (0, 0),
            content=content,
        )
