"""The digest of a layer's tar, computed in order behind the threads that make its segments."""

from __future__ import annotations

import hashlib
import queue
import threading

from pipeline.digest import DiffId
from pipeline.errors import VerificationError

_AHEAD = 16
"""Pieces (each at most 1 MiB, or of one decompression) that a segment may be ahead of its turn."""

_LOOK = 0.1
"""Seconds between looks whether the work was abandoned."""


class TarDigest:
    """The digest over segments, whose bytes come from several threads."""

    def __init__(self, directories: bytes, segments: int) -> None:
        self._queues: list[queue.Queue[bytes | memoryview | None]] = [queue.Queue(_AHEAD) for _ in range(segments)]
        self._abandoned = threading.Event()
        self._hash = hashlib.sha256(directories)
        self._size = len(directories)

    def put(self, at: int, data: bytes | memoryview | None) -> None:
        """Take the next bytes of a segment, None at its end; wait while it is too far ahead.

        The bytes must not change afterwards.
        """
        while not self._abandoned.is_set():
            try:
                return self._queues[at].put(data, timeout=_LOOK)
            except queue.Full:
                continue

    def follow(self, at: int) -> None:
        """Hash a segment as its bytes come, until its end."""
        while not self._abandoned.is_set():
            try:
                data = self._queues[at].get(timeout=_LOOK)
            except queue.Empty:
                continue
            if data is None:
                return
            self._hash.update(data)
            self._size += len(data)

    def abandon(self) -> None:
        """Let everybody go who waits."""
        self._abandoned.set()

    def finish(self, end: bytes, size: int) -> DiffId:
        """Return the diff_id of a tar of `size` bytes.

        Raises VerificationError `layer-malformed` for another size.
        """
        self._hash.update(end)
        self._size += len(end)
        if self._size != size:
            raise VerificationError("layer-malformed", f"a layer's segments have {self._size} bytes of tar, not {size}")
        return DiffId(self._hash.hexdigest())
