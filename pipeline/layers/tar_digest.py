"""The digest of a layer's tar, computed in order behind the threads that make its segments."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

from pipeline.compression import Piece
from pipeline.digest import DiffId
from pipeline.errors import VerificationError
from pipeline.layers.tar_marks import TarKey, TarMark, TarMarker
from pipeline.lazy_dataclasses import dataclass
from pipeline.store import failing_at

if TYPE_CHECKING:
    import hashlib

_AHEAD = 3
"""Pieces that the segment whose turn it is may be ahead of its hash: hashing is faster than what makes them."""

TAR_WAITING_LIMIT = 32 << 20
"""Bytes of all layers' segments that wait for their turn in memory; the others wait in a file."""

TAR_FILE_LIMIT = 1 << 30
"""Bytes of all layers' segments that wait in files: the store's temporary folder may be memory (tmpfs). Most
images have less tar in all, so nothing of theirs waits for room."""

_READ = 1 << 20
"""Bytes that are read and hashed at once: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class _InMemory:
    """Bytes of a segment; `used` is called when they were hashed."""

    data: Piece | memoryview
    used: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _InFile:
    """Bytes of a segment that wait in the file."""

    start: int
    size: int


_Waiting: TypeAlias = "_InMemory | _InFile | None"


class TarDigest:
    """The digest over segments, whose bytes come from several threads in any order of segments.

    The bytes of a segment whose turn has not come wait in memory, up to `limit` bytes of all together. Beyond that they
    wait in a file in `folder` that has no name, up to `file_limit` bytes; beyond that, or without a folder, who brings
    them waits for the segment's turn. One thread has to begin segments in their order then: it never waits for another,
    because all before its own are begun, and the one whose turn it is waits for the hash alone. To be closed, with
    `with`.
    """

    def __init__(
        self,
        directories: bytes,
        segments: int,
        *,
        limit: int,
        folder: Path | None = None,
        file_limit: int = TAR_FILE_LIMIT,
    ) -> None:
        import hashlib

        self._waiting: list[deque[_Waiting]] = [deque() for _ in range(segments)]
        self._change = threading.Condition()
        self._turn = 0
        self._held = 0
        self._limit = limit
        self._abandoned = False
        self._stalled = 0
        self._folder = folder
        self._file: BinaryIO | None = None
        self._file_limit = file_limit if folder is not None else 0
        self._file_size = 0
        self._file_unread = 0
        self.key = TarKey()
        self._hash: hashlib._Hash = hashlib.sha256()
        self._marker = TarMarker(self.key)
        self._update(directories)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, at: int, data: Piece | memoryview, used: Callable[[], None] = lambda: None) -> None:
        """Take the next bytes of a segment, which must not change until `used` is called.

        Waits while the segment whose turn it is is ahead of its hash, and any other while it has no room. Raises
        CancelledError once the work was abandoned: nobody takes the bytes.
        """
        size = len(data)
        with self._change:
            self._wait_for_room(at, size)
            if self._abandoned:
                used()
                raise CancelledError("the layer was abandoned")
            folder = self._folder
            if folder is None or at == self._turn or self._held + size <= self._limit:
                self._append(at, _InMemory(data, used))
                return
            file, start = self._draft(folder), self._file_size
            self._file_size += size
            self._file_unread += size
        with failing_at(folder), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.pwrite(file.fileno(), view[written:], start + written)
        used()
        with self._change:
            self._append(at, _InFile(start, size))

    @property
    def stalled(self) -> bool:
        """True while bytes of a segment whose turn has not come find no room."""
        return self._stalled > 0

    def end(self, at: int) -> None:
        """Note that a segment has no more bytes."""
        with self._change:
            self._append(at, None)

    def _wait_for_room(self, at: int, size: int) -> None:
        if self._abandoned or self._has_room(at, size):
            return
        ahead = at != self._turn
        self._stalled += ahead
        try:
            self._change.wait_for(lambda: self._abandoned or self._has_room(at, size))
        finally:
            self._stalled -= ahead

    def _has_room(self, at: int, size: int) -> bool:
        if at == self._turn:
            return len(self._waiting[at]) < _AHEAD
        return self._held + size <= self._limit or self._file_size + size <= self._file_limit

    def _append(self, at: int, item: _Waiting) -> None:
        self._waiting[at].append(item)
        if isinstance(item, _InMemory):
            self._held += len(item.data)
        if at == self._turn:
            self._change.notify_all()

    def _draft(self, folder: Path) -> BinaryIO:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="tar-")  # noqa: SIM115 - closed at the end of the digest
        return self._file

    def follow(self, at: int) -> None:
        """Hash a segment as its bytes come, until its end."""
        with self._change:
            self._turn = at
            self._change.notify_all()
        while (item := self._next(at)) is not None:
            if isinstance(item, _InFile):
                self._hash_file(item)
                continue
            size = len(item.data)
            self._update(item.data)
            item.used()
            with self._change:
                self._held -= size
                self._change.notify_all()

    def _hash_file(self, item: _InFile) -> None:
        if self._file is None:
            raise AssertionError("bytes wait in a file that was not begun")
        file = self._file
        buffer = bytearray(min(_READ, item.size))
        with memoryview(buffer) as view:
            at, end = item.start, item.start + item.size
            while at < end:
                size = os.preadv(file.fileno(), [view[: min(len(view), end - at)]], at)
                if not size:
                    raise VerificationError("layer-malformed", "bytes that wait to be hashed were cut off")
                self._update(view[:size])
                at += size
        with self._change:
            self._file_unread -= item.size
            if not self._file_unread:  # What is written next begins at its start again.
                os.ftruncate(file.fileno(), 0)
                self._file_size = 0
                self._change.notify_all()

    def _next(self, at: int) -> _Waiting:
        """Return the next bytes of a segment; None at its end, or if the work was abandoned."""
        with self._change:
            self._change.wait_for(lambda: self._abandoned or self._waiting[at])
            if self._abandoned:
                return None
            item = self._waiting[at].popleft()
            self._change.notify_all()
            return item

    def abandon(self) -> None:
        """Let everybody go who waits."""
        with self._change:
            self._abandoned = True
            self._change.notify_all()

    def finish(self, end: bytes, size: int) -> DiffId:
        """Return the diff_id of a tar of `size` bytes.

        Raises VerificationError `layer-malformed` for another size.
        """
        self._update(end)
        if self._marker.size != size:
            raise VerificationError(
                "layer-malformed", f"a layer's segments have {self._marker.size} bytes of tar, not {size}"
            )
        return DiffId(self._hash.hexdigest())

    def mark(self) -> TarMark:
        """Return the mark of the whole tar, under `key`; to be called once, after `finish`."""
        return self._marker.mark()

    def _update(self, data: Piece | memoryview) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view), _READ):
                part = view[start : start + _READ]
                self._marker.update(part)  # Brings them into the cache faster than sha256 does.
                self._hash.update(part)
