"""Copy blobs to where they are wanted while they are read back, into files without names.

A copy is named once its blob was confirmed (open(2), O_TMPFILE; linkat(2)). Until then nobody sees it, and whatever
ends the process leaves nothing of it. It is made where that saves time: not where the file system shares blocks, nor
where it has little room. What hinders it is no error; the blob is then copied from the store, as any other.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from pipeline.clone import shares_blocks
from pipeline.digest import Digest

_ROOM: Final = 2
"""Times the content's size that the file system must have free: the store may be on it, and needs more meanwhile."""
_ROOM_BESIDES: Final = 64 << 20
_SPARED_FILES: Final = 16
"""Files that the process must still be able to open once a copy is begun."""
_NO_FOLDER: Final = 0
"""Directory of an absolute path, which linkat(2) does not look at; without one Python calls link(2)."""


class UnnamedCopy:
    """A copy of one blob, for the thread that reads that back."""

    def __init__(self, handle: int) -> None:
        """Write to `handle`, which it closes."""
        self._handle = handle
        self._size = 0

    def passing(self, readinto: Callable[[memoryview], int]) -> Callable[[memoryview], int]:
        """Return `readinto`, of whose bytes the copy is made."""

        def read(view: memoryview) -> int:
            size = readinto(view)
            self._write(view[:size])
            return size

        return read

    def _write(self, data: memoryview) -> None:
        try:
            while data and self._handle >= 0:
                written = os.write(self._handle, data)
                self._size += written
                data = data[written:]
        except OSError:  # Who copies it from the store meets the same, and tells it.
            self.close()

    def name(self, size: int, path: Path) -> bool:
        """Give a copy of `size` bytes the name `path`; return False if that cannot be.

        It is closed in any case.
        """
        try:
            if self._handle < 0 or (self._size, os.fstat(self._handle).st_size) != (size, size):
                return False
            os.close(os.dup(self._handle))  # Where writes fail late, it is told here.
            os.link(f"/proc/self/fd/{self._handle}", path, src_dir_fd=_NO_FOLDER)
        except OSError:
            return False
        finally:
            self.close()
        return True

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return self._size

    @property
    def closed(self) -> bool:
        """True if nothing can be written any more, nor a name be given."""
        return self._handle < 0

    def close(self) -> None:
        """Close the file, which is gone then if it has no name. May be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with contextlib.suppress(OSError):
                os.close(handle)


class UnnamedCopies:
    """Copies of blobs for a folder that need not be there, in a `with` block.

    At its end those without a name go. For any thread; `drafts` is the folder in which the blobs are written, and
    `former` tells where a copy of a blob may have a name already.
    """

    def __init__(self, folder: Path, drafts: Path, former: Callable[[Digest], Path] | None = None) -> None:
        self._folder = folder
        self._drafts = drafts
        self._former = former
        self._guard = threading.Lock()
        self._begun: dict[UnnamedCopy, int] = {}
        """Copies, each with the bytes that may still be written of it."""
        self._confirmed: dict[Digest, UnnamedCopy] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have all copies without a name go. May be called twice, once no thread writes them."""
        for copy in self._begun:
            copy.close()

    def begin(self, room: int) -> UnnamedCopy | None:
        """Begin a copy of a blob of at most `room` bytes; return None where that is not worth while.

        None too where that would take the room, or the open files, that others need.
        """
        handle = -1
        with contextlib.suppress(OSError), self._guard:
            if len(os.listdir("/proc/self/fd")) + _SPARED_FILES > os.sysconf("SC_OPEN_MAX"):  # noqa: PTH208
                return None
            promised = sum(left for copy, left in self._begun.items() if not copy.closed)
            there = next(one for one in (self._folder, *self._folder.absolute().parents) if one.exists())
            handle = os.open(there, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            if _has_room(handle, promised + room) and not shares_blocks(self._drafts, handle):
                copy = UnnamedCopy(handle)
                self._begun[copy] = room
                return copy
        if handle >= 0:
            os.close(handle)
        return None

    def confirm(self, digest: Digest, copy: UnnamedCopy) -> None:
        """Have a copy be that of a blob whose every byte passed through it, and was confirmed.

        It goes if a file of that size has the blob's former name: who verifies that will want no other.
        """
        if self._has_former(digest, copy.size):
            copy.close()
            return
        with self._guard:
            self._begun[copy] = 0
            self._confirmed[digest] = copy

    def _has_former(self, digest: Digest, size: int) -> bool:
        with contextlib.suppress(OSError):
            if self._former is not None:
                found = self._former(digest).lstat()
                return stat.S_ISREG(found.st_mode) and found.st_size == size
        return False

    def name(self, digest: Digest, size: int, path: Path) -> bool:
        """Give the copy of a blob the name `path`; return False if there is none.

        A copy has one name, so that what is written to one file changes no other.
        """
        with self._guard:
            copy = self._confirmed.pop(digest, None)
        return copy is not None and copy.name(size, path)


def _has_room(handle: int, size: int) -> bool:
    found = os.fstatvfs(handle)
    if not found.f_blocks:
        return True  # A tmpfs without a limit.
    return found.f_bavail * found.f_frsize >= _ROOM * size + _ROOM_BESIDES
