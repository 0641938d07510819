"""A crash of the machine: what relbuild did not sync before it is lost, or half of it is, which is worse.

After `fsync` of a file its bytes stay; after `fsync` of a folder the names in it do (fsync(2)). Of all else three
things are tried: the names stay and the bytes are gone (what delayed allocation leaves), the names are gone, or each
is gone or stays by chance. A journalling file system keeps more than that.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from plan import Call

_WRITES = frozenset(
    {"write", "pwrite", "writev", "sendfile", "copy_file_range", "ftruncate", "ftruncate64", "fallocate"}
)
_NAMES = frozenset(
    {
        "open",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "remove",
    }
)
_SYNCS = frozenset({"fsync", "fdatasync"})


class Loss(StrEnum):
    """What is lost."""

    BYTES = "bytes"
    NAMES = "names"
    SOME = "some"


def crash(work: Path, template: Path, calls: Iterable[Call], loss: Loss, chance: random.Random) -> int:
    """Take from `work` what was not synced by `calls`; `template` is what stood there before. How much that was."""
    unsynced, names = _pending(calls)
    names = {path for path in names if path.is_relative_to(work)}  # A file without a name is linked from /proc.
    lost = 0
    for path in sorted(names, reverse=True) if loss is not Loss.BYTES else ():
        if loss is Loss.SOME and chance.random() < 0.5:
            continue
        lost += _forget(path, template / path.relative_to(work))
    for path in sorted(work.rglob("*")) if loss is not Loss.NAMES else ():
        if path.is_symlink() or not path.is_file() or path.stat().st_ino not in unsynced or not path.stat().st_size:
            continue
        if loss is Loss.SOME and chance.random() < 0.5:
            continue
        with path.open("r+b") as file:
            file.truncate(0)
        lost += 1
    return lost


def _pending(calls: Iterable[Call]) -> tuple[set[int], set[Path]]:
    """Inodes with bytes that were not synced, and paths whose being there (or not) was not."""
    inodes: set[int] = set()
    names: dict[Path, None] = {}
    for call in calls:
        if call.name in _WRITES:
            inodes.add(call.inode)
        elif call.name in _SYNCS:
            inodes.discard(call.inode)
            folder = Path(call.path)
            for path in [path for path in names if path.parent == folder]:
                del names[path]
        elif call.name in _NAMES and not (call.name == "open" and call.inode):
            names.update(dict.fromkeys(Path(one) for one in (call.path, call.other) if one))
    return inodes, set(names)


def _forget(path: Path, before: Path) -> int:
    """Put a name back to what it was before; 1 if that is another thing."""
    if path.is_dir() and not path.is_symlink():
        return 0
    there, was = path.exists() or path.is_symlink(), before.exists() or before.is_symlink()
    if was and before.is_dir() and not before.is_symlink():
        return 0
    if there:
        path.unlink()
    if was and path.parent.is_dir():
        shutil.copy2(before, path, follow_symlinks=False)
    return int(there or was)
