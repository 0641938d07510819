"""Compressed streams: the codecs of layers and of repository metadata, every reader with a bound.

A layer's tar bytes are cut into pieces of at most `PIECE` bytes and each piece becomes a whole gzip member
(RFC 1952) or zstd frame (RFC 8878). Members and frames concatenate into valid streams, so compressed pieces
are kept and put together without being compressed again, and pieces are compressed side by side without the
number of cores showing in the bytes.

gzip is made by libdeflate, which is 3 to 4 times faster than zlib at the same size: measured on one core with
8 MiB of shared libraries, libdeflate 5 compresses 111 MB/s to 37.1 % (zlib 6: 29 MB/s to 37.4 %) and
decompresses 700 MB/s (zlib: 240 MB/s); zstd 3 compresses 244 MB/s to 38.5 % and decompresses 960 MB/s. Both
let go of Python's lock: two threads do twice the work in the same time. libdeflate decompresses only whole
members, so ours say their length in an extra field (RFC 1952, 2.3.1.1), as BGZF's do; members of others are
read by zlib.
"""

from __future__ import annotations

import bz2
import io
import lzma
import queue
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Protocol, TypeAlias, TypeVar

import deflate
import zstandard

from pipeline.errors import VerificationError

T = TypeVar("T")
_Buffered: TypeAlias = "io.BufferedReader[io.RawIOBase]"

PIECE = 4 << 20
"""Bytes of tar per member or frame: large enough to cost next to nothing in size, small enough that the dozen
that are in flight on two cores take 50 MB."""

METADATA_LIMIT = 4 << 30
"""Bytes of decompressed repository metadata: ten times the largest file lists known."""

LAYER_LIMIT = 256 << 30
"""Bytes of tar that a layer may hold when nobody says how many it should: far more than any image, far less
than a disk filled by a bomb."""

GZIP_LEVEL = 5
ZSTD_LEVEL = 3

_READ = 1 << 20
_WINDOW = 128 << 20
"""Bytes of zstd window: what `zstd --long=27` uses; a stream that wants more is refused."""
_LZMA_MEMORY = 256 << 20
"""Bytes of memory for xz: `xz -9` needs 65 MiB."""

_MEMBER = struct.Struct("<4sIBBH2sHI")
"""A gzip header with flag FEXTRA, no time, and one extra field: `RB`, 4 bytes, the member's whole length."""
_MEMBER_START = b"\x1f\x8b\x08\x04"
_FIELD = b"RB"
_TRAILER = struct.Struct("<II")
_UNKNOWN_SYSTEM = 255
_MEMBER_LIMIT = PIECE + (PIECE >> 3) + 64


def gzip_member(piece: bytes) -> bytes:
    """`piece` (at most `PIECE` bytes) as one gzip member. The same bytes always give the same member."""
    body = deflate.deflate_compress(piece, GZIP_LEVEL)
    length = _MEMBER.size + len(body) + _TRAILER.size
    header = _MEMBER.pack(_MEMBER_START, 0, 0, _UNKNOWN_SYSTEM, 8, _FIELD, 4, length)
    return b"".join((header, body, _TRAILER.pack(deflate.crc32(piece), len(piece))))


def zstd_frame(piece: bytes) -> bytes:
    """`piece` as one zstd frame with its content's size and checksum, made by one thread."""
    compressor = zstandard.ZstdCompressor(
        level=ZSTD_LEVEL, write_checksum=True, write_content_size=True, write_dict_id=False, threads=0
    )
    return compressor.compress(piece)


CODECS: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType({"gzip": gzip_member, "zstd": zstd_frame})
"""Codec of a layer → how one piece is compressed. The names are those of `model.image.Compression`."""

VERSIONS = f"deflate-{deflate.__version__} zstd-{'.'.join(str(part) for part in zstandard.ZSTD_VERSION)}"
"""The libraries that the compressed bytes depend on: part of a segment's identity."""


def decompressed(file: BinaryIO, *, limit: int, name: str, workers: int = 0) -> Iterator[bytes]:
    """What `file` holds, decompressed, in pieces of at most `PIECE` bytes.

    gzip, zstd, xz, bzip2 (each of any number of concatenated streams) are told by their first bytes; anything
    else is passed on as it is. With `workers`, gzip members of our own are decompressed side by side. `name`
    is for errors. Raises VerificationError `stream-damaged`, or `stream-too-large` once more than `limit`
    bytes have come out; a truncated zstd stream is told only by its digest.
    """
    reader: _Buffered = io.BufferedReader(_raw(file), _READ)
    start = reader.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        pieces = _members(reader, workers) if start.startswith(_MEMBER_START) else _zlib(reader)
    elif start.startswith(b"\x28\xb5\x2f\xfd") or start[1:4] == b"\x2a\x4d\x18":
        pieces = _zstd(reader)
    elif start.startswith(b"\xfd7zXZ\x00"):
        pieces = _streams(reader, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY))
    elif start.startswith(b"BZh"):
        pieces = _streams(reader, bz2.BZ2Decompressor)
    else:
        pieces = iter(lambda: reader.read(_READ), b"")
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > limit:
                raise VerificationError(
                    "stream-too-large", f"{name} decompresses to more than {limit} bytes", place=name
                )
            yield piece
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, deflate.DeflateError, EOFError, OSError) as error:
        raise VerificationError("stream-damaged", f"{name} cannot be decompressed: {error}", place=name) from error


def open_compressed(path: Path, *, limit: int = METADATA_LIMIT) -> BinaryIO:
    """The decompressed content of a file, as a file. Closing it closes `path`. Errors as `decompressed`."""
    file = path.open("rb")
    return io.BufferedReader(Pieces(decompressed(file, limit=limit, name=path.name), file.close), _READ)


def ahead(pieces: Iterator[T], *, depth: int = 4) -> Iterator[T]:
    """The same items, made by a thread that is up to `depth` of them ahead; its error is raised here."""
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    abandoned = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
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


class Pieces(io.RawIOBase):
    """Pieces, made when they are asked for, as a raw file. Closing it calls `at_end`."""

    def __init__(self, pieces: Iterator[bytes], at_end: Callable[[], object] | None = None) -> None:
        self._pieces = pieces
        self._at_end = at_end
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """As many bytes as fit, 0 at the end."""
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


class _Stream(Protocol):
    """What zlib's, lzma's and bz2's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _streams(reader: _Buffered, make: Callable[[], _Stream]) -> Iterator[bytes]:
    """Concatenated xz or bzip2 streams; decompressors keep what `max_length` made them hold back."""
    data = reader.read(_READ)
    while data:
        stream = make()
        while True:
            if piece := stream.decompress(data, PIECE):
                yield piece
            if stream.eof:
                break
            data = reader.read(_READ) if stream.needs_input else b""
            if stream.needs_input and not data:
                raise EOFError("it ends too early")
        data = stream.unused_data or reader.read(_READ)


def _zlib(reader: _Buffered) -> Iterator[bytes]:
    """gzip members of any make."""
    data = reader.read(_READ)
    while data:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            if not data:
                raise EOFError("it ends too early")
            if piece := stream.decompress(data, PIECE):
                yield piece
            data = stream.unconsumed_tail or (b"" if stream.eof else reader.read(_READ))
        data = stream.unused_data or reader.read(_READ)
        if data and not data.strip(b"\0"):
            data = b""  # Zeros after the last member are padding (gzip(1), "trailing garbage").


def _zstd(reader: _Buffered) -> Iterator[bytes]:
    """zstd frames of any make."""
    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        reader, read_size=_READ, read_across_frames=True, closefd=False
    )
    while piece := stream.read(_READ):
        yield piece


def _members(reader: _Buffered, workers: int) -> Iterator[bytes]:
    """Our own gzip members, `workers` side by side; from the first one of another make on, zlib."""
    if workers <= 1:
        for member in _own_members(reader):
            yield _whole_member(member)
    else:
        running: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(workers, "relbuild-gunzip") as pool:
            try:
                for member in _own_members(reader):
                    running.append(pool.submit(_whole_member, member))
                    if len(running) > workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()
    yield from _zlib(reader)


def _own_members(reader: _Buffered) -> Iterator[bytes]:
    while reader.peek(4)[:4] == _MEMBER_START:
        header = reader.peek(_MEMBER.size)[: _MEMBER.size]
        if len(header) < _MEMBER.size:
            return
        *_, extra, field, size, length = _MEMBER.unpack(header)
        if (extra, field, size) != (8, _FIELD, 4) or not _MEMBER.size < length <= _MEMBER_LIMIT:
            return
        yield reader.read(length)


def _whole_member(member: bytes) -> bytes:
    checksum, size = _TRAILER.unpack(member[-_TRAILER.size :])
    if size > PIECE:
        raise EOFError("a member is larger than any that relbuild makes")
    piece = bytes(deflate.deflate_decompress(member[_MEMBER.size : -_TRAILER.size], size))
    if len(piece) != size or deflate.crc32(piece) != checksum:
        raise EOFError("a member's checksum does not match")
    return piece


class _Reader(io.RawIOBase):
    """Any object with `read` as a raw file; closing it leaves the object open."""

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
