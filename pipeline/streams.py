"""Decompress streams with bounds, as pieces or as files, and read ahead in a thread.

The codecs are in `compression`.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.compression import (
    GZIP,
    PIECE,
    READ_SIZE,
    START_SIZE,
    Codec,
    Piece,
    codec_of,
    damages,
)
from pipeline.errors import STORE_DAMAGE_HINT, VerificationError
from pipeline.gzip_members import decompress_own_gzip
from pipeline.input_slices import Buffered
from pipeline.processors import whole_processors

_T = TypeVar("_T")

METADATA_SIZE_LIMIT = 4 << 30
"""Bytes of decompressed repository metadata: ten times the largest file lists known."""

BUFFER_SIZE = 64 << 10
"""Bytes that are read ahead of a stream's decompression."""

LAYER_SIZE_LIMIT = 256 << 30
"""Bytes of tar that a layer may have if its size is not declared: far more than any image's, far less than a
decompression bomb's."""


def decompression_workers() -> int:
    """Return how many threads decompress a layer: as many as processors may be used now."""
    return min(8, whole_processors())


def decompressed(
    file: BinaryIO, *, limit: int, name: str, workers: int = 0, codec: Codec | None = None, own: bool = False
) -> Iterator[Piece]:
    """Decompress `file`, and yield pieces of at most `PIECE` bytes.

    gzip, zstd, xz, bzip2 (each of any number of concatenated streams) are detected by their first bytes; other
    streams are passed on unchanged, unless `codec` says what they are. With `workers`, gzip members whose length is in
    their header (relbuild's) are decompressed in as many threads. `own`: its digest is that of a stream that this
    store compressed, which is read by a faster library (`gzip_members`). `name` is for errors.

    Raises VerificationError `stream-damaged`, or `stream-too-large` beyond `limit` decompressed bytes, if no damage
    shows in a member's size more; truncation of a zstd stream is detected only by its digest.
    """
    # Larger reads go past a small buffer; what is in it is copied.
    reader: Buffered = io.BufferedReader(_raw(file), BUFFER_SIZE)
    codec = codec or codec_of(reader.peek(START_SIZE)[:START_SIZE])
    decompress = decompress_own_gzip if own and codec is GZIP else codec.decompress if codec else None
    pieces: Iterator[Piece] = decompress(reader, workers) if decompress else iter(lambda: reader.read(READ_SIZE), b"")
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > limit:
                _read_on(pieces)
                raise VerificationError(
                    "stream-too-large", f"{name} decompresses to more than {limit} bytes", place=name
                )
            yield piece
            del piece  # Its memory is free for the next one, if the caller has let go of it too.
    except damages() as error:
        raise VerificationError(
            "stream-damaged",
            f"{name} cannot be decompressed: {error}",
            place=name,
            hint=STORE_DAMAGE_HINT if own else None,
        ) from error


def _read_on(pieces: Iterator[Piece]) -> None:
    """Read a member's size more: one that is damaged may be of any size.

    Its checksum comes last.
    """
    left = PIECE
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            return


def open_compressed(path: Path, *, limit: int = METADATA_SIZE_LIMIT) -> BinaryIO:
    """Open the decompressed content of the file at `path` as a file.

    Closing it closes `path`. Errors as `decompressed`.
    """
    file = path.open("rb")
    return io.BufferedReader(IteratorFile(decompressed(file, limit=limit, name=path.name), file.close), READ_SIZE)


def prefetch(pieces: Iterator[_T], *, depth: int = 4) -> Iterator[_T]:
    """Yield the items of `pieces`, made ahead by a thread.

    The thread is up to `depth` of them ahead; its error is raised here.
    """
    waiting: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(depth)
    abandoned = threading.Event()

    def put(item: _T | None, error: BaseException | None) -> bool:
        while not abandoned.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for piece in pieces:
                if not put(piece, None):
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)

    worker = threading.Thread(target=work, name="relbuild-ahead", daemon=True)
    worker.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        abandoned.set()
        worker.join()


class PieceReader:
    """A reader of an iterator of pieces that hands out views of them, without copying content."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """Return up to `most` bytes of what is at hand; none at the end only."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest = memoryview(piece)
        found, self._rest = self._rest[:most], self._rest[most:]
        return found

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end."""
        found = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        while len(found) < size and (more := self.some(size - len(found))):
            found += more
        return found


class IteratorFile(io.RawIOBase):
    """A raw file that reads from an iterator of pieces. Closing it calls `at_end`."""

    def __init__(self, pieces: Iterator[Piece], at_end: Callable[[], object] | None = None) -> None:
        self._pieces = pieces
        self._at_end = at_end
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read up to as many bytes as fit; return their number, 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Call `at_end`, once."""
        if self._at_end is not None and not self.closed:
            self._at_end()
        super().close()


class _Reader(io.RawIOBase):
    """A raw file that reads from an object with `read`, which stays open when it is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _raw(file: BinaryIO) -> io.RawIOBase:
    return file if isinstance(file, io.RawIOBase) else _Reader(file)
