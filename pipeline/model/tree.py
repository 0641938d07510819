"""Data classes for a file-system tree: entries by canonical path."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass


class EntryKind(StrEnum):
    """Types of entries.

    HARDLINK: another name of the file at `link`.
    """

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    FIFO = "fifo"
    CHARACTER = "character"
    BLOCK = "block"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque"


_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFCHR: EntryKind.CHARACTER,
    stat.S_IFBLK: EntryKind.BLOCK,
}


def kind_of(mode: int) -> EntryKind | None:
    """Return the type that a st_mode says; None for what no image holds (a socket)."""
    return _KINDS.get(stat.S_IFMT(mode))


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry at one path.

    `path` is canonical: relative to the image's root, no leading or trailing slash, no `.` or `..`, nothing
    of it beneath a symlink; bytes that are no UTF-8 are surrogate-escaped. `mode` is the twelve permission
    bits. `uid`, `gid` are the image's numbers. `mtime` is whole seconds since the epoch. `size` bytes (files
    only). `link` is a symlink's target as written, or the canonical path that a hard link names. `xattrs` are
    sorted (name, value), `security.capability` as a v2 attribute. `device` is (major, minor). `content` is
    the digest of a file's bytes where it is known. `owner` is the NEVRA of the package that it comes from.
    """

    path: str
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)
    content: Digest | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """A sorted map path → entry.

    The root directory is not in it unless a package gives it a mode.
    """

    entries: Mapping[str, Entry]

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> Tree:
        """Return a tree with its entries in order of path."""
        return cls(MappingProxyType({path: entries[path] for path in sorted(entries)}))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, path: str) -> Entry | None:
        """Return the entry at `path`, if there is one."""
        return self.entries.get(path)
