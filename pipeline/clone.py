"""Copy a file to another inode, sharing blocks where the file system can (FICLONE).

Writes to one do not change the other. Where the file system shares blocks (Btrfs, XFS: ioctl_ficlone(2)) a copy costs
neither time nor space; elsewhere the kernel copies (copy_file_range(2)), and between file systems that cannot do that,
bytes are read and written.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

_FICLONE: Final = 0x40049409
"""`_IOW(0x94, 9, int)` of linux/fs.h; another number only on architectures that relbuild does not run on."""

CLONE_PIECE: Final = 8 << 20
"""Bytes copied at a time: an interrupt is noticed between two."""

_CANNOT: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)
"""Error numbers that mean that blocks cannot be shared or copied.
They come from file systems, kernels and filters of system calls."""


def clone_file(source: BinaryIO, target: BinaryIO, copied: Callable[[int], None] = lambda end: None) -> None:
    """Copy the whole of `source` into the empty file `target`. Raises OSError.

    `copied` is called with the number of bytes that were copied so far, after each piece; not where blocks are shared.
    """
    target.flush()
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _copy(source.fileno(), target.fileno(), copied)


def shares_blocks(folder: Path, target: int) -> bool:
    """Return whether the empty file `target` could share the blocks of files in `folder`.

    Raises OSError if no file without a name can be made there (open(2), O_TMPFILE).
    """
    source = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    finally:
        os.close(source)
    return True


def _copy(source: int, target: int, copied: Callable[[int], None]) -> None:
    done = 0
    try:
        while count := os.copy_file_range(source, target, CLONE_PIECE, offset_src=done, offset_dst=done):
            done += count
            copied(done)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    # Copy the rest: the whole file where copy_file_range does not work or (on virtual file systems) copies nothing.
    while piece := os.pread(source, CLONE_PIECE, done):
        view = memoryview(piece)
        while view:
            written = os.pwrite(target, view, done)
            view = view[written:]
            done += written
        copied(done)
