"""Read a blob's file while it is written."""

from __future__ import annotations

import os
import threading
from typing import Self


class WrittenSize:
    """The size of a file so far, and whether that is all."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._size = 0
        self._ended = False
        self._whole = False

    def grow(self, size: int) -> None:
        """Note that the file has `size` bytes now."""
        with self._change:
            self._size = size
            self._change.notify_all()

    def end(self, *, whole: bool) -> None:
        """Note that no more is written; the file is not `whole` if its writer failed."""
        with self._change:
            self._ended, self._whole = True, whole
            self._change.notify_all()

    def beyond(self, size: int) -> int:
        """Return the number of bytes after the first `size`; wait for some, unless they have ended.

        Raises CancelledError if the writer failed.
        """
        with self._change:
            self._change.wait_for(lambda: self._size > size or self._ended)
            if self._ended and not self._whole:
                # Here and not above: whoever opens a store loads this module.
                from concurrent.futures import CancelledError

                raise CancelledError("what is read is not written any more")
            return self._size - size


class BlobFollower:
    """A reader of a file that is being written, to be used in a `with` block.

    It reads what the writer's file has, not what the writer was given.
    """

    def __init__(self, handle: int, written: WrittenSize) -> None:
        self._handle = handle
        self._written = written
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what fits as soon as there is some; return its size, 0 at the end only.

        Raises CancelledError if the writer fails.
        """
        there = self._written.beyond(self._at)
        size = os.preadv(self._handle, [buffer[:there]], self._at) if there else 0
        self._at += size
        return size

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
