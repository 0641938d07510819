"""Seal unpacked trees; check by metadata or by hashing that a tree is unchanged.

Names, inodes and change times show that nothing was changed; hashing also shows that the disk has corrupted nothing.

A tree is not synced when it is made, which would take longer than making it. So one that was made before the machine's
last start is hashed once before it is used again: then it is known to be on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.store.authenticated_values import Sealer, SealFault, read_small

TREE_ROOT = "root"
"""Name of the tree itself in its folder."""

TREE_SEAL_FILE = "seal"
"""Name of the file with the tree's seal, beside it."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SETTLED = "settled"
"""In place of the boot's identifier: the tree was hashed after a restart."""


@dataclass(frozen=True, slots=True)
class TreeSeal:
    """Content of a tree's seal.

    `look`: digest over names, inodes, modes, owners, sizes and change times; `content`: digest over the files' content;
    `boot`: the machine's boot in which it was written; `over`: the name of the whole tree that it changes, "" if it is
    a whole one itself.
    """

    look: str
    content: str
    boot: str
    over: str = ""


def content_digest(files: Mapping[str, str]) -> str:
    """Return the digest over a tree's files. `files`: path below the root → sha256 in hex."""
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(os.fsencode(path) + b"\0" + files[path].encode() + b"\n")
    return found.hexdigest()


def write_seal(folder: Path, name: str, content: str, sealer: Sealer, *, settled: bool = False, over: str = "") -> None:
    """Write the seal of the tree in `folder`, kept under `name`; `over` as in `TreeSeal`."""
    told = {
        "look": tree_metadata_digest(folder / TREE_ROOT),
        "content": content,
        "boot": _SETTLED if settled else _boot(),
        **({"over": over} if over else {}),
    }
    draft = folder / f".{TREE_SEAL_FILE}"
    draft.write_bytes(sealer.seal(name, json.dumps(told).encode()))
    draft.replace(folder / TREE_SEAL_FILE)


def read_seal(folder: Path, name: str, sealer: Sealer | None) -> TreeSeal | None:
    """Read a tree's seal; None if it has none that this store made for `name`."""
    data = read_small(folder / TREE_SEAL_FILE)
    if sealer is None or data is None or isinstance(data, SealFault):
        return None
    value = sealer.unseal(name, data)
    if isinstance(value, SealFault):
        return None
    try:
        return TreeSeal(**json.loads(value))
    except (TypeError, ValueError):
        return None


def is_foreign_seal(folder: Path, name: str, sealer: Sealer | None) -> bool:
    """Return whether a tree's seal is there and of another key; None: this store has none yet."""
    data = read_small(folder / TREE_SEAL_FILE)
    if data is None or isinstance(data, SealFault):
        return False
    return sealer is None or sealer.unseal(name, data) is SealFault.FOREIGN


class TreeFault(Enum):
    """Fault of a sealed tree.

    It was changed after it was sealed, or the content of its files was read and is another.
    """

    CHANGED = auto()
    DAMAGED = auto()


def tree_fault(folder: Path, name: str, sealer: Sealer | None, *, reading: bool = False) -> TreeFault | None:
    """Return what is wrong with a tree; None if it is unchanged since it was sealed.

    By its metadata: the kernel sets the change time with every change of content or attributes, and nobody else can.
    With `reading`, and once after a restart, its files are hashed too.
    """
    try:
        sealed = read_seal(folder, name, sealer)
        if sealer is None or sealed is None:
            return TreeFault.CHANGED
        same = sealed.look == tree_metadata_digest(folder / TREE_ROOT)
        if not reading and (not same or sealed.boot in (_SETTLED, _boot())):
            return None if same else TreeFault.CHANGED
        if sealed.content != content_digest(hash_tree_files(folder / TREE_ROOT)):
            return TreeFault.DAMAGED
        if not same:
            return TreeFault.CHANGED
        if sealed.boot not in (_SETTLED, _boot()):
            with contextlib.suppress(OSError):
                write_seal(folder, name, sealed.content, sealer, settled=True, over=sealed.over)
    except OSError:
        return TreeFault.DAMAGED if reading else TreeFault.CHANGED
    return None


def hash_tree_files(root: Path) -> dict[str, str]:
    """Return path → sha256 (hex) of each regular file below `root`; hard links are read once."""
    found: dict[str, str] = {}
    seen: dict[tuple[int, int], str] = {}
    base = os.fsencode(root)
    folders = [base]
    while folders:
        with os.scandir(folders.pop()) as items:
            for item in items:
                status = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(item.path)
                elif stat.S_ISREG(status.st_mode):
                    inode = (status.st_dev, status.st_ino)
                    if inode not in seen:
                        with open(item.path, "rb") as file:  # noqa: PTH123  a path in bytes
                            seen[inode] = hashlib.file_digest(file, "sha256").hexdigest()
                    found[os.fsdecode(item.path[len(base) + 1 :])] = seen[inode]
    return found


def tree_metadata_digest(root: Path) -> str:
    """Return the digest over names, inodes, modes, owners, sizes and change times below `root`."""
    found = hashlib.sha256()
    folders = [os.fsencode(root)]
    _look_at(found, b"", os.lstat(root))
    while folders:
        with os.scandir(folders.pop()) as items:
            listed = sorted(items, key=lambda item: item.name)
        for item in listed:
            status = item.stat(follow_symlinks=False)
            _look_at(found, item.path, status)
            if stat.S_ISDIR(status.st_mode):
                folders.append(item.path)
    return found.hexdigest()


def _look_at(found: hashlib._Hash, path: bytes, status: os.stat_result) -> None:
    name = path.rpartition(b"/")[2]
    found.update(
        b"%s\0%d %d %d %d %d %d\n"
        % (
            name,
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_ctime_ns,
        )
    )


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
