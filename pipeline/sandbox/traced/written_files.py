"""Set-id bits and capabilities of files that a command writes to.

The kernel takes them at the first write. Writes are not traced. So a file that has them and is opened to write is kept
with the digest of its content, which is compared before its attributes are read or changed, and when the command has
ended.
"""

from __future__ import annotations

import contextlib
import os
import stat

from pipeline.digest import digest_file
from pipeline.sandbox.traced.call_context import CallContext
from pipeline.sandbox.traced.inode_records import InodeRecord


def opened_to_write(context: CallContext, path: str, status: os.stat_result) -> None:
    """Keep a file's content in mind if a write to it would take something."""
    key = (status.st_dev, status.st_ino)
    if key not in context.suspects and _privileged(context.tree.records.of(status)):
        context.suspects[key] = (path, digest_file(context.tree.root / path))


def settle(context: CallContext, status: os.stat_result, *, changes: bool = True) -> None:
    """Take from a file what writes to it until now have taken.

    It is called before its attributes are read, and, with `changes`, before they are changed.
    """
    key = (status.st_dev, status.st_ino)
    if key not in context.suspects or not (changes or _privileged(context.tree.records.of(status))):
        return
    path, before = context.suspects[key]
    place = context.tree.root / path
    try:
        present = os.lstat(place)
        if (present.st_dev, present.st_ino) != key:
            raise FileNotFoundError
        now = digest_file(place)
    except FileNotFoundError:
        del context.suspects[key]
        return
    if now != before:
        context.suspects[key] = (path, now)
        lose_privileges(context, present)


def renamed(context: CallContext, old: str, new: str) -> None:
    """Take note of a new path of a file, or of a directory with what is below it."""
    for key, (path, content) in context.suspects.items():
        if path == old or path.startswith(f"{old}/"):
            context.suspects[key] = (new + path[len(old) :], content)


def removed(context: CallContext, status: os.stat_result) -> None:
    """Take note that a name of a file is removed, or replaced.

    Its record goes with its last name.
    """
    if stat.S_ISDIR(status.st_mode) or status.st_nlink < 2:
        context.tree.records.removed(status)
        context.suspects.pop((status.st_dev, status.st_ino), None)


def strip_written(context: CallContext) -> None:
    """Settle all files that a command has written to. Raises OSError."""
    for path, _ in [*context.suspects.values()]:
        with contextlib.suppress(FileNotFoundError):
            settle(context, os.lstat(context.tree.root / path))
    context.suspects.clear()


def lose_privileges(context: CallContext, status: os.stat_result) -> None:
    """Take set-id bits and capabilities from a file that is written to, as the kernel does."""
    record = context.tree.records.of(status)
    mode = record.mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    kept = tuple(one for one in record.xattrs if one[0] != "security.capability")
    if (mode, kept) != (record.mode, record.xattrs):
        context.tree.records.set(status, InodeRecord(mode, record.uid, record.gid, kept))


def _privileged(record: InodeRecord) -> bool:
    return bool(record.mode & (stat.S_ISUID | stat.S_ISGID) or dict(record.xattrs).get("security.capability"))
