"""Reading an image's file system in the ways that it reaches people, as comparable values."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.digest import digest_file

CAPABILITY = "security.capability"


@dataclass(frozen=True)
class Found:
    """What stands at a path of a real directory, as far as an image determines it."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: str
    content: str
    capability: bytes
    names: tuple[str, ...] = ()


def read_tree(top: Path) -> dict[str, Found]:
    """Every path below `top`, read with plain system calls (and not by the code under test)."""
    found: dict[str, Found] = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            relative = os.path.relpath(path, top)
            status = path.lstat()
            found[relative] = _read(path, status)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                inodes.setdefault((status.st_dev, status.st_ino), []).append(relative)
    for names in inodes.values():
        for name in names:
            found[name] = replace(found[name], names=tuple(sorted(names)))
    return dict(sorted(found.items()))


def _read(path: Path, status: os.stat_result) -> Found:
    regular = stat.S_ISREG(status.st_mode)
    link = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
    capability = b""
    if regular and CAPABILITY in os.listxattr(path):
        capability = as_version_2(os.getxattr(path, CAPABILITY))
    return Found(
        kind=stat.filemode(status.st_mode)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular else 0,
        mtime=int(status.st_mtime),
        link=link,
        content=str(digest_file(path)) if regular else "",
        capability=capability,
    )


def as_version_2(value: bytes) -> bytes:
    """A capability attribute without the root id that a user namespace adds to it."""
    magic = struct.unpack_from("<I", value)[0]
    if magic & 0xFF000000 == 0x03000000:
        return struct.pack("<I", 0x02000000 | (magic & 0x00FFFFFF)) + value[4:20]
    return value


def without(tree: Mapping[str, Found], *fields: str, kinds: str = "") -> dict[str, Found]:
    """The same tree with some fields blanked, on the kinds of entry named (all when none is)."""
    blank = {field: type(getattr(next(iter(tree.values())), field))() for field in fields} if tree else {}
    return {
        path: replace(entry, **blank) if not kinds or entry.kind in kinds else entry for path, entry in tree.items()
    }


@dataclass(frozen=True)
class Difference:
    """One field of one path that is not the same in both. `field` is `presence` where the path stands on one
    `side` only; `kind` is the entry's first letter as `ls` shows it."""

    path: str
    kind: str
    field: str
    mine: object
    theirs: object
    side: str = ""

    def __str__(self) -> str:
        if self.field == "presence":
            return f"{self.path}: only in {self.side}: {self.mine or self.theirs}"
        return f"{self.path}: {self.field} is {self.mine!r} and {self.theirs!r}"


def differences(mine: Mapping[str, Found], theirs: Mapping[str, Found], names: tuple[str, str]) -> list[Difference]:
    """Every difference between two trees, `names` being what the sides are called."""
    found = []
    for path in sorted(mine.keys() | theirs.keys()):
        first, second = mine.get(path), theirs.get(path)
        if first is None or second is None:
            one = first or second
            assert one is not None
            side = names[0] if second is None else names[1]
            found.append(Difference(path, one.kind, "presence", first, second, side))
            continue
        for field in Found.__dataclass_fields__:
            a, b = getattr(first, field), getattr(second, field)
            if a != b:
                found.append(Difference(path, first.kind, field, a, b))
    return found


def merged(roots: Iterable[Path]) -> dict[str, Found]:
    """What an overlay of unpacked layers shows, lowest first, by the rules of the image-spec's layer.md as they
    stand in overlayfs (character device 0:0, trusted.overlay.opaque)."""
    result: dict[str, Found] = {}
    for root in roots:
        layer = read_tree(root)
        for path, entry in layer.items():
            status = (root / path).lstat()
            gone = entry.kind == "c" and status.st_rdev == 0
            opaque = entry.kind == "d" and "trusted.overlay.opaque" in os.listxattr(root / path)
            if gone or opaque or entry.kind != "d":
                for below in [known for known in result if known == path or known.startswith(f"{path}/")]:
                    del result[below]
            if not gone:
                result[path] = entry
    return dict(sorted(result.items()))
