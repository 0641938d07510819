"""gzip members: made by libdeflate, and decompressed by it if relbuild's, else by zlib.

libdeflate decompresses only whole members, so relbuild's have their length in an extra field (RFC 1952, 2.3.1.1), like
BGZF's. `compression` has the choice of libraries and levels.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import io
    from concurrent.futures import Future

    Buffered: TypeAlias = io.BufferedReader[io.RawIOBase]

GZIP_LEVEL = 5
"""Of libdeflate; what it costs and gives is in `compression`."""
MEMBER_CONTENT = 4 << 20
"""Bytes of content that a member of relbuild's has at most: see `compression.PIECE`."""
_READ_SIZE = 1 << 20
"""Bytes that are read at once for zlib."""
_MEMBER = struct.Struct("<4sIBBH2sHI")
"""A gzip header with flag FEXTRA, no time, and one extra field: `RB`, 4 bytes, the member's whole length."""
GZIP_MAGIC = b"\x1f\x8b"
_MEMBER_START = GZIP_MAGIC + b"\x08\x04"
_FIELD = b"RB"
_TRAILER = struct.Struct("<II")
_UNKNOWN_SYSTEM = 255
_PLAIN_HEADER = GZIP_MAGIC + b"\x08" + bytes(6) + b"\xff"
"""A gzip header without anything that may be left out."""
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


def _own_member(rest: memoryview) -> bytes | bytearray:
    """Decompress a member that relbuild has made, of which `rest` is what follows the header.

    libdeflate does not say where a deflate stream ends: bytes behind it, before the trailer, are not noticed.
    """
    import deflate

    checksum, size = _trailer(rest)
    body = rest[: -_TRAILER.size]
    if size == 0:  # libdeflate's binding does not read a stream of which nothing is to come.
        _require_exact(body, size)
    piece: bytearray = deflate.deflate_decompress(body, size)
    _require_content(piece, checksum, size)
    return piece


def _exact_member(rest: memoryview) -> bytes | bytearray:
    """Decompress a member that anybody may have made, if its deflate stream ends at its trailer.

    `rest` is what follows the header. As a gzip member, libdeflate compares its content with the eight bytes behind the
    stream, wherever that ends. They are the content's checksum and size, as the trailer is. If those are nowhere else
    in the member, the stream ends there; else zlib says where it does.
    """
    import deflate

    checksum, size = _trailer(rest)
    if size == 0:
        return _own_member(rest)
    member = b"".join((_PLAIN_HEADER, rest))
    piece: bytearray = deflate.gzip_decompress(member, size)
    _require_content(piece, checksum, size)
    if member.find(member[-_TRAILER.size :]) != len(member) - _TRAILER.size:
        _require_exact(rest[: -_TRAILER.size], size)
    return piece


def _trailer(rest: memoryview) -> tuple[int, int]:
    """Return the checksum and size at a member's end."""
    if len(rest) < _TRAILER.size:
        raise EOFError("it ends too early")
    checksum, size = _TRAILER.unpack(rest[-_TRAILER.size :])
    if size > MEMBER_CONTENT:
        raise EOFError("a member is larger than any that relbuild makes")
    return checksum, size


def _require_content(piece: bytearray, checksum: int, size: int) -> None:
    import deflate

    if len(piece) != size or deflate.crc32(piece) != checksum:
        raise EOFError("a member's checksum does not match")


def _require_exact(body: memoryview, size: int) -> None:
    """Raise if a member's body is not a deflate stream of `size` bytes and nothing else."""
    stream = zlib.decompressobj(wbits=-15)
    if len(stream.decompress(body, size + 1)) != size or not stream.eof or stream.unused_data:
        raise EOFError("a member's size does not match, or bytes follow its deflate stream")


def decompress_gzip(
    reader: Buffered, workers: int, whole_member: Callable[[memoryview], bytes | bytearray] = _exact_member
) -> Iterator[bytes | bytearray]:
    """Decompress members in relbuild's form in `workers` threads; from another one on, by zlib."""
    from concurrent.futures import ThreadPoolExecutor

    members = _OwnMembers(reader)
    if workers <= 1:
        buffer = bytearray()
        while length := members.next_length():
            if len(buffer) < length:
                buffer = bytearray(length)
            with memoryview(buffer) as view:
                yield whole_member(members.read(view[:length]))
    else:
        running: deque[Future[bytes | bytearray]] = deque()
        with ThreadPoolExecutor(workers, "relbuild-gunzip") as pool:
            try:
                while length := members.next_length():
                    running.append(pool.submit(whole_member, members.read(memoryview(bytearray(length)))))
                    if len(running) > workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()
    if members.found and members.start and not members.start.startswith(GZIP_MAGIC):
        raise EOFError("bytes that are no member follow its last one")
    yield from _zlib(reader, members.start)


def decompress_own_gzip(reader: Buffered, workers: int) -> Iterator[bytes | bytearray]:
    """Decompress gzip that relbuild has made here.

    Bytes behind a member's deflate stream are not looked for, which takes a sixth longer.
    """
    return decompress_gzip(reader, workers, _own_member)


class _OwnMembers:
    """Reader of relbuild's gzip members.

    `found`: there was one; `start` is what was read of another one.
    """

    def __init__(self, reader: Buffered) -> None:
        self._reader = reader
        self.found = False
        self.start = b""

    def next_length(self) -> int:
        """Read the next member's header; return the bytes after it, 0 if it is another's."""
        self.start = self._reader.read(_MEMBER.size)
        if len(self.start) < _MEMBER.size or not self.start.startswith(_MEMBER_START):
            return 0
        *_, extra, field, size, length = _MEMBER.unpack(self.start)
        if (extra, field, size) != (8, _FIELD, 4) or not _MEMBER.size < length <= _MEMBER_LIMIT:
            return 0
        self.found = True
        return int(length) - _MEMBER.size

    def read(self, room: memoryview) -> memoryview:
        """Read the rest of the member into `room`, which is as large; return that."""
        if self._reader.readinto(room) < len(room):
            raise EOFError("it ends too early")
        return room


def _zlib(reader: Buffered, start: bytes) -> Iterator[bytes]:
    """Decompress any gzip members; `start` was read of them already."""
    data = start + reader.read(_READ_SIZE)
    while data:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            if not data:
                raise EOFError("it ends too early")
            if piece := stream.decompress(data, MEMBER_CONTENT):
                yield piece
            data = stream.unconsumed_tail or (b"" if stream.eof else reader.read(_READ_SIZE))
        data = stream.unused_data or reader.read(_READ_SIZE)
        if data.startswith(b"\0"):
            _require_padding(reader, data)
            return


def _require_padding(reader: Buffered, data: bytes) -> None:
    """Raise if anything but zeros follows the last member: those are padding (gzip(1))."""
    while data:
        if data.strip(b"\0"):
            raise EOFError("bytes that are no member follow its last one")
        data = reader.read(_READ_SIZE)
