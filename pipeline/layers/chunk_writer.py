"""Writer that compresses tar bytes in pieces, in parallel and in order, into a blob."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from pipeline.compression import PIECE, Compression, Piece, PieceStream, layer_codec
from pipeline.digest import DiffId
from pipeline.layers.tar_format import TAR_END, padding, tar_header
from pipeline.model.tree import Entry, EntryKind
from pipeline.processors import whole_processors
from pipeline.store import BlobWriter


def compression_workers() -> int:
    """Return how many threads compress: as many as processors may be used now.

    The bytes do not depend on it.
    """
    return min(8, whole_processors())


class CompressionPool(ThreadPoolExecutor):
    """The threads that compress pieces, and the buffers of the pieces, which are used again.

    `workers` is how many threads there are.
    """

    def __init__(self) -> None:
        self.workers = compression_workers()
        super().__init__(self.workers, "relbuild-compress")
        self._spare: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """Return a buffer of `PIECE` bytes, with any content."""
        try:
            return self._spare.pop()
        except IndexError:
            return bytearray(PIECE)

    @property
    def full(self) -> bool:
        """True while a piece waits for each thread: more of them would only take memory."""
        return self._work_queue.qsize() >= self.workers

    def shared(self, buffer: bytearray, users: int) -> Callable[[], None]:
        """Return what each of a buffer's users calls, once; the last call gives the buffer back."""
        last = deque([True, *[False] * (users - 1)])  # Two threads never pop the same.

        def used() -> None:
            if last.pop():
                self._spare.append(buffer)

        return used


PieceTaker: TypeAlias = "Callable[[memoryview, Callable[[], None]], None]"
"""Takes a piece of tar, in order, and calls the function when it has no more use for it."""


class ChunkWriter:
    """A writer that takes tar bytes and writes whole compressed pieces to a blob.

    `size` is bytes of tar so far. Some more pieces than `ahead` are in memory, however large the files are: by default
    two for each thread.
    Pieces are members of their own, or with a codec that has streams, and more than one piece, one member together:
    then they are compressed one after the other, by one thread at a time, while one waits and the next one is filled.
    `taker` is given each piece too.
    """

    def __init__(
        self,
        blob: BlobWriter,
        compression: Compression,
        pool: CompressionPool,
        *,
        hashed: bool = True,
        taker: PieceTaker | None = None,
        ahead: int | None = None,
    ) -> None:
        self._blob = blob
        self._codec = layer_codec(compression)
        self._member = self._codec.parts or _in_one_part(self._codec.compress)
        self._stream: PieceStream | None = None
        self._pool = pool
        self._piece: bytearray | None = None
        self._filled = 0
        self._running: deque[Future[tuple[Piece, ...]]] = deque()
        self._queued: deque[tuple[Future[tuple[Piece, ...]], Callable[[], tuple[Piece, ...]]]] = deque()
        self._queue_lock = threading.Lock()
        self._queue_served = False
        self._taker = taker
        self._ahead = 2 * pool.workers if ahead is None else ahead
        self._hash = hashlib.sha256() if hashed else None
        self.size = 0

    def entry(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> None:
        """Write an entry with exactly `entry.size` bytes of content, if it is a file."""
        self.write(tar_header(entry))
        if entry.kind is EntryKind.FILE and entry.size:
            before = self.size
            for data in content:
                self.write(data)
            self._require(entry, self.size - before)
            self.write(padding(entry.size))

    def file(self, entry: Entry, read: Callable[[memoryview], int]) -> None:
        """Write a file with content, which `read` reads into the pieces themselves.

        It returns how many bytes it has read, at the end none.
        """
        self.write(tar_header(entry))
        rest = entry.size
        while rest:
            piece = self._piece or self._begin_piece()
            with memoryview(piece) as view, view[self._filled : min(PIECE, self._filled + rest)] as room:
                size = read(room)
                if self._hash is not None:
                    self._hash.update(room[:size])
            if not size:
                break
            self._grow(piece, size)
            rest -= size
        self._require(entry, entry.size - rest)
        self.write(padding(entry.size))

    def _require(self, entry: Entry, size: int) -> None:
        if size != entry.size:
            raise ValueError(f"{entry.path}: the header announced {entry.size} bytes, {size} followed")

    def write(self, data: bytes | memoryview) -> None:
        """Write any bytes of tar."""
        if self._hash is not None:
            self._hash.update(data)
        rest = memoryview(data)
        while rest:
            piece = self._piece or self._begin_piece()
            part = rest[: PIECE - self._filled]
            end = self._filled + len(part)
            memoryview(piece)[self._filled : end] = part  # A slice of the bytearray itself would be copied twice.
            self._grow(piece, len(part))
            rest = rest[len(part) :]

    def _begin_piece(self) -> bytearray:
        self._piece, self._filled = self._pool.take(), 0
        return self._piece

    def _grow(self, piece: bytearray, size: int) -> None:
        self.size += size
        self._filled += size
        if self._filled == PIECE:
            self._begin_stream()
            self._submit(piece)

    def end(self) -> None:
        """Write the end marker, and finish."""
        self.write(TAR_END)
        self.finish()

    def finish(self) -> None:
        """Wait until everything is compressed and written."""
        if self._piece is not None:
            self._submit(self._piece)
        while self._running:
            self._blob.write(*self._running.popleft().result())
        if self._stream is not None:
            self._blob.write(self._stream.flush())
            self._stream = None

    @property
    def diff_id(self) -> DiffId:
        """Digest of the tar bytes so far."""
        if self._hash is None:
            raise ValueError("this writer was made without `hashed`")
        return DiffId(self._hash.hexdigest())

    def _begin_stream(self) -> None:
        if self._stream is None and self._codec.stream is not None:
            self._stream = self._codec.stream()

    def _submit(self, piece: bytearray) -> None:
        ahead = self._ahead if self._stream is None else 1
        while self._running and (len(self._running) > ahead or self._running[0].done() or self._pool.full):
            self._blob.write(*self._running.popleft().result())
        size, self._piece = self._filled, None
        used = self._pool.shared(piece, 1 if self._taker is None else 2)
        if self._stream is None:
            self._running.append(self._pool.submit(_compressed, self._member, piece, size, used))
        else:
            self._queue(functools.partial(_compressed, _in_one_part(self._stream.compress), piece, size, used))
        if self._taker is not None:
            self._taker(memoryview(piece)[:size], used)

    def _queue(self, work: Callable[[], tuple[Piece, ...]]) -> None:
        """Have a piece of a stream compressed after those before it."""
        future: Future[tuple[Piece, ...]] = Future()
        self._running.append(future)
        with self._queue_lock:
            self._queued.append((future, work))
            if self._queue_served:
                return
            self._queue_served = True
        self._pool.submit(self._serve_queue)

    def _serve_queue(self) -> None:
        while True:
            with self._queue_lock:
                if not self._queued:
                    self._queue_served = False
                    return
                future, work = self._queued.popleft()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)


def _in_one_part(compress: Callable[[memoryview], bytes]) -> Callable[[memoryview], tuple[Piece, ...]]:
    return lambda piece: (compress(piece),)


def _compressed(
    compress: Callable[[memoryview], tuple[Piece, ...]], piece: bytearray, size: int, used: Callable[[], None]
) -> tuple[Piece, ...]:
    with memoryview(piece) as view, view[:size] as content:
        found = compress(content)
    used()
    return found
