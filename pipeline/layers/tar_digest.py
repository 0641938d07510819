"""The digest of a layer's tar, computed in order behind the threads that make its segments."""

from __future__ import annotations

import hashlib
import threading
from collections import deque

from pipeline.digest import DiffId
from pipeline.errors import VerificationError

_AHEAD = 16
"""Pieces (each at most 1 MiB, or of one decompression) that a segment may be ahead of its turn."""

_WAITING_LIMIT = 64 << 20
"""Bytes of all segments that wait for their turn: behind one large package there may be hundreds of small ones."""


class TarDigest:
    """The digest over segments, whose bytes come from several threads.

    The segment whose turn it is must be made while others wait: they are to be begun in their order.
    """

    def __init__(self, directories: bytes, segments: int) -> None:
        self._pieces: list[deque[bytes | memoryview | None]] = [deque() for _ in range(segments)]
        self._change = threading.Condition()
        self._turn = 0
        self._waiting = 0
        self._abandoned = False
        self._hash = hashlib.sha256(directories)
        self._size = len(directories)

    def put(self, at: int, data: bytes | memoryview | None) -> None:
        """Take the next bytes of a segment, None at its end; wait while it is too far ahead.

        The bytes must not change afterwards.
        """
        with self._change:
            if data is not None:
                self._change.wait_for(lambda: self._abandoned or self._has_room(at))
            if self._abandoned:
                return
            self._pieces[at].append(data)
            self._waiting += len(data or b"")
            self._change.notify_all()

    def _has_room(self, at: int) -> bool:
        return len(self._pieces[at]) < _AHEAD and (at == self._turn or self._waiting < _WAITING_LIMIT)

    def follow(self, at: int) -> None:
        """Hash a segment as its bytes come, until its end."""
        with self._change:
            self._turn = at
            self._change.notify_all()
        while (data := self._next(at)) is not None:
            self._hash.update(data)
            self._size += len(data)

    def _next(self, at: int) -> bytes | memoryview | None:
        """Return the next bytes of a segment; None at its end, or if the work was abandoned."""
        with self._change:
            self._change.wait_for(lambda: self._abandoned or self._pieces[at])
            if self._abandoned:
                return None
            data = self._pieces[at].popleft()
            self._waiting -= len(data or b"")
            self._change.notify_all()
            return data

    def abandon(self) -> None:
        """Let everybody go who waits."""
        with self._change:
            self._abandoned = True
            self._change.notify_all()

    def finish(self, end: bytes, size: int) -> DiffId:
        """Return the diff_id of a tar of `size` bytes.

        Raises VerificationError `layer-malformed` for another size.
        """
        self._hash.update(end)
        self._size += len(end)
        if self._size != size:
            raise VerificationError("layer-malformed", f"a layer's segments have {self._size} bytes of tar, not {size}")
        return DiffId(self._hash.hexdigest())
