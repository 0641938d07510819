"""gzip members: made by libdeflate, and decompressed by it if made here, else by zlib.

libdeflate decompresses only whole members, so relbuild's have their length in an extra field (RFC 1952, 2.3.1.1), like
BGZF's. `compression` has the choice of libraries and levels.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from pipeline.input_slices import Buffered, InputSlices

if TYPE_CHECKING:
    from concurrent.futures import Future

GZIP_LEVEL = 5
"""Of libdeflate; what it costs and gives is in `compression`."""
MEMBER_CONTENT = 4 << 20
"""Bytes of content that a member of relbuild's has at most: see `compression.PIECE`."""
_MEMBER = struct.Struct("<4sIBBH2sHI")
"""A gzip header with flag FEXTRA, no time, and one extra field: `RB`, 4 bytes, the member's whole length."""
GZIP_MAGIC = b"\x1f\x8b"
_MEMBER_START = GZIP_MAGIC + b"\x08\x04"
_FIELD = b"RB"
_TRAILER = struct.Struct("<II")
_UNKNOWN_SYSTEM = 255
_MEMBER_LIMIT = MEMBER_CONTENT + (MEMBER_CONTENT >> 3) + 64


def gzip_member(piece: bytes | memoryview) -> bytes:
    """Compress `piece` (at most `MEMBER_CONTENT` bytes) to one gzip member.

    The same bytes always give the same member.
    """
    return b"".join(gzip_parts(piece))


def gzip_parts(piece: bytes | memoryview) -> tuple[bytes | bytearray, ...]:
    """Return the header, body and trailer of `gzip_member`: joining them would copy all of it."""
    import deflate

    body = deflate.deflate_compress(piece, GZIP_LEVEL)
    length = _MEMBER.size + len(body) + _TRAILER.size
    header = _MEMBER.pack(_MEMBER_START, 0, 0, _UNKNOWN_SYSTEM, 8, _FIELD, 4, length)
    return header, body, _TRAILER.pack(deflate.crc32(piece), len(piece))


def decompress_gzip(reader: Buffered, workers: int) -> Iterator[bytes | bytearray]:
    """Decompress any members, by zlib: what comes of them is what gzip reads.

    Members that have their length in their header are decompressed in `workers` threads, if that is where they end;
    from another one on, in one. Bytes that are no member are refused, also zeros: clients do so (Go, `compress/gzip`).
    """
    members = _Members(reader)
    rest = b""
    if workers > 1:
        rest = yield from _in_threads(members, workers, _foreign_member)
    yield from _zlib(reader, rest)


def decompress_own_gzip(reader: Buffered, workers: int) -> Iterator[bytes | bytearray]:
    """Decompress gzip that relbuild has made here: by libdeflate, another's member by zlib.

    Not for others' gzip: libdeflate takes codes for sound that the format does not have (lengths 286 and 287, distances
    30 and 31), and does not say where a deflate stream ends.
    """
    members = _Members(reader)
    if workers > 1:
        yield from _zlib(reader, (yield from _in_threads(members, workers, _own_member)))
        return
    while member := members.next(again=True):
        yield _own_member(member)
    yield from _zlib(reader, members.rest)


class _Members:
    """Reader of gzip members that have their length in their header.

    `rest` is what was read behind the last one.
    """

    def __init__(self, reader: Buffered) -> None:
        self._reader = reader
        self._room = bytearray()
        self.rest = b""

    def next(self, *, again: bool = False) -> memoryview | None:
        """Read the next member; return it, None if there is no such. `again`: into the same memory."""
        start = self._reader.read(_MEMBER.size)
        length = _stated_length(start)
        if length == 0:
            self.rest = start
            return None
        if not again or len(self._room) < length:
            self._room = bytearray(length)
        member = memoryview(self._room)[:length]
        member[: len(start)] = start
        read = len(start) + self._reader.readinto(member[len(start) :])
        if read < length:
            self.rest = bytes(member[:read])
            return None
        return member


def _stated_length(start: bytes) -> int:
    """Return the length in a member's header, 0 if it has none that relbuild's may have."""
    if len(start) < _MEMBER.size or not start.startswith(_MEMBER_START):
        return 0
    *_, extra, field, size, length = _MEMBER.unpack(start)
    known = (extra, field, size) == (8, _FIELD, 4) and _MEMBER.size + _TRAILER.size < length <= _MEMBER_LIMIT
    return int(length) if known else 0


def _in_threads(
    members: _Members, workers: int, decompress: Callable[[memoryview], bytes | bytearray | None]
) -> Generator[bytes | bytearray, None, bytes]:
    """Yield the content of members in turn; return what was read behind the last one.

    One of which `decompress` returns None is no such member, nor is what was read behind it.
    """
    from concurrent.futures import ThreadPoolExecutor

    running: deque[tuple[memoryview, Future[bytes | bytearray | None]]] = deque()
    more = True
    with ThreadPoolExecutor(workers, "relbuild-gunzip") as pool:
        try:
            while more or running:
                if more and len(running) <= workers:
                    member = members.next()
                    more = member is not None
                    if member is not None:
                        running.append((member, pool.submit(decompress, member)))
                    continue
                first, future = running.popleft()
                piece = future.result()
                if piece is None:
                    return b"".join([first, *(one for one, _ in running), members.rest])
                del first, future
                yield piece
                del piece  # Its memory is free for the next one.
        finally:
            for _, future in running:
                future.cancel()
    return members.rest


def _own_member(member: memoryview) -> bytes | bytearray:
    """Decompress a member that relbuild has made."""
    import deflate

    body = member[_MEMBER.size : -_TRAILER.size]
    checksum, size = _TRAILER.unpack(member[-_TRAILER.size :])
    if size > MEMBER_CONTENT:
        raise EOFError("a member is larger than any that relbuild makes")
    # libdeflate's binding does not read a stream of which nothing is to come.
    piece = deflate.deflate_decompress(body, size) if size else zlib.decompress(body, wbits=-15)
    if len(piece) != size or deflate.crc32(piece) != checksum:
        raise EOFError("a member's checksum does not match")
    return piece


def _foreign_member(member: memoryview) -> bytes | None:
    """Decompress a member that anybody may have made; None if it ends elsewhere."""
    stream = zlib.decompressobj(wbits=31)
    piece = stream.decompress(member, MEMBER_CONTENT + 1)
    ends = stream.eof and not stream.unused_data and len(piece) <= MEMBER_CONTENT
    return piece if ends else None


def _zlib(reader: Buffered, start: bytes) -> Iterator[bytes]:
    """Decompress any gzip members; `start` was read of them already."""
    slices = InputSlices(reader, start)
    del start
    while magic := slices.begin_stream(len(GZIP_MAGIC)):
        if not GZIP_MAGIC.startswith(magic):
            raise EOFError("it has bytes that are no gzip member")
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            data = slices.next()
            if not data:
                raise EOFError("it ends too early")
            if piece := stream.decompress(data, MEMBER_CONTENT):
                yield piece
            slices.give_back(len(stream.unused_data) or len(stream.unconsumed_tail))
