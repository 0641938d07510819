"""Codecs (gzip, zstd, xz, bzip2): detect and decompress streams, compress layer pieces.

Each codec has one declaration.

A layer's tar bytes are cut into pieces of at most `PIECE` bytes. With gzip each piece becomes a whole member
(RFC 1952); with zstd the pieces of one segment become one frame (RFC 8878), whose long-distance matcher finds what a
package has several times. Members and frames concatenate into valid streams, so compressed segments are kept and
concatenated without being compressed again, and made in parallel without the number of cores affecting the bytes.

gzip is made by libdeflate, which is 3 to 4 times faster than zlib at the same size: measured on one core with
8 MiB of shared libraries, libdeflate 5 compresses 111 MB/s to 37.1 % (zlib 6: 29 MB/s to 37.4 %) and
decompresses 700 MB/s (zlib: 240 MB/s); zstd 3 compresses 244 MB/s to 38.5 % and decompresses 960 MB/s. Both
release Python's lock: two threads do twice the work in the same time. libdeflate decompresses only whole
members, so relbuild's have their length in an extra field (RFC 1952, 2.3.1.1), like BGZF's; other members are
decompressed by zlib.

A codec of layers is a member of `Compression` and a `LayerCodec`; both are declared here, and nothing else lists them.
The libraries are imported when they are used.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, assert_never

from pipeline.lazy_dataclasses import dataclass

if TYPE_CHECKING:
    import io
    from concurrent.futures import Future

Buffered: TypeAlias = "io.BufferedReader[io.RawIOBase]"

Piece: TypeAlias = bytes | bytearray
"""Bytes, compressed or not, as the library gives them: making others of a layer's would copy all of it."""

PIECE = 4 << 20
"""Bytes of tar per member or frame: large enough to cost next to nothing in size, small enough that the dozen
that are in flight on two cores take 50 MB."""

GZIP_LEVEL = 5
ZSTD_LEVEL = 3
"""Of a frame of one piece."""
ZSTD_STREAM_LEVEL = 2
"""Of a frame of several pieces: with matches over the whole window smaller than `zstd -3`, and made in less time."""
ZSTD_WINDOW_LOG = 23
"""8 MiB of window: the most that encoders should ask of decoders (RFC 8878, 3.1.1.1.2)."""

READ_SIZE = 1 << 20
"""Bytes that are read at once."""
_WINDOW = 128 << 20
"""Bytes of zstd window: that of `zstd --long=27`; a stream that needs more is refused."""
_LZMA_MEMORY = 256 << 20
"""Bytes of memory for xz: `xz -9` needs 65 MiB."""
START_SIZE = 6
"""Number of first bytes of a stream by which its codec is detected."""


class Compression(StrEnum):
    """The compressions of layers."""

    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec that can be decompressed.

    `suffixes` are file name suffixes, `encodings` the words of Content-Encoding. `starts` detects a stream by its first
    `START_SIZE` bytes; `decompress` yields its content in pieces of at most `PIECE` bytes, with as many threads as its
    second argument, if it can.
    """

    name: str
    suffixes: tuple[str, ...]
    encodings: tuple[str, ...]
    starts: Callable[[bytes], bool]
    decompress: Callable[[Buffered, int], Iterator[Piece]]


@dataclass(frozen=True, slots=True)
class LayerCodec:
    """A codec that layers are written with.

    `media_suffix` is that of a layer's media type, `compress` makes a whole member of one piece, the same for the same
    bytes, and `version` names the library and the form that the bytes depend on. `stream`, where there is one, begins a
    member of several pieces; else each is a member of its own. `parts`, where there is one, makes what `compress` does
    in parts, which need not be joined.
    """

    reads: Codec
    media_suffix: str
    compress: Callable[[bytes | memoryview], bytes]
    version: Callable[[], str]
    stream: Callable[[], PieceStream] | None = None
    parts: Callable[[bytes | memoryview], tuple[Piece, ...]] | None = None


class PieceStream(Protocol):
    """A member of several pieces, compressed one after the other.

    The bytes do not depend on where the pieces are cut.
    """

    def compress(self, piece: bytes | memoryview, /) -> bytes:
        """Return what has come of the pieces so far."""
        ...

    def flush(self) -> bytes:
        """Return the rest; no piece follows."""
        ...


def layer_codec(compression: Compression) -> LayerCodec:
    """Return the codec of a compression."""
    match compression:
        case Compression.GZIP:
            return LayerCodec(GZIP, "+gzip", gzip_member, _deflate_version, parts=gzip_parts)
        case Compression.ZSTD:
            return LayerCodec(ZSTD, "+zstd", zstd_frame, _zstd_version, _zstd_stream)
        case _:
            assert_never(compression)


def layer_versions() -> str:
    """Return the library versions that compressed bytes depend on; part of a segment's identity."""
    return " ".join(dict.fromkeys(layer_codec(compression).version() for compression in Compression))


def codec_of(start: bytes) -> Codec | None:
    """Return the codec of a stream with these first bytes, or None.

    None is returned if the stream is not compressed, or by an unknown codec.
    """
    return next((codec for codec in CODECS if codec.starts(start)), None)


def crc32(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """Return the CRC-32 of `data` that follows on what has the checksum `before`.

    libdeflate computes it several times as fast as zlib.
    """
    import deflate

    return deflate.crc32(data, before)


def damages() -> tuple[type[Exception], ...]:
    """Return the errors that the codecs' libraries raise of streams that cannot be decompressed."""
    import lzma

    import deflate
    import zstandard

    return zlib.error, zstandard.ZstdError, lzma.LZMAError, deflate.DeflateError, EOFError, OSError


# --- gzip ----------------------------------------------------------------------------------------------

_MEMBER = struct.Struct("<4sIBBH2sHI")
"""A gzip header with flag FEXTRA, no time, and one extra field: `RB`, 4 bytes, the member's whole length."""
_MAGIC = b"\x1f\x8b"
_MEMBER_START = _MAGIC + b"\x08\x04"
_FIELD = b"RB"
_TRAILER = struct.Struct("<II")
_UNKNOWN_SYSTEM = 255
_PLAIN_HEADER = _MAGIC + b"\x08" + bytes(6) + b"\xff"
"""A gzip header without anything that may be left out."""
_MEMBER_LIMIT = PIECE + (PIECE >> 3) + 64


def gzip_member(piece: bytes | memoryview) -> bytes:
    """Compress `piece` (at most `PIECE` bytes) to one gzip member.

    The same bytes always give the same member.
    """
    return b"".join(gzip_parts(piece))


def gzip_parts(piece: bytes | memoryview) -> tuple[Piece, ...]:
    """Return the header, body and trailer of `gzip_member`: joining them would copy all of it."""
    import deflate

    body = deflate.deflate_compress(piece, GZIP_LEVEL)
    length = _MEMBER.size + len(body) + _TRAILER.size
    header = _MEMBER.pack(_MEMBER_START, 0, 0, _UNKNOWN_SYSTEM, 8, _FIELD, 4, length)
    return header, body, _TRAILER.pack(deflate.crc32(piece), len(piece))


def _deflate_version() -> str:
    import deflate

    return f"deflate-{deflate.__version__}"


def _own_member(rest: memoryview) -> Piece:
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


def _exact_member(rest: memoryview) -> Piece:
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
    if size > PIECE:
        raise EOFError("a member is larger than any that relbuild makes")
    return checksum, size


def _require_content(piece: bytearray, checksum: int, size: int) -> None:
    if len(piece) != size or crc32(piece) != checksum:
        raise EOFError("a member's checksum does not match")


def _require_exact(body: memoryview, size: int) -> None:
    """Raise if a member's body is not a deflate stream of `size` bytes and nothing else."""
    stream = zlib.decompressobj(wbits=-15)
    if len(stream.decompress(body, size + 1)) != size or not stream.eof or stream.unused_data:
        raise EOFError("a member's size does not match, or bytes follow its deflate stream")


def _gunzip(
    reader: Buffered, workers: int, whole_member: Callable[[memoryview], Piece] = _exact_member
) -> Iterator[Piece]:
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
        running: deque[Future[Piece]] = deque()
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
    if members.found and members.start and not members.start.startswith(_MAGIC):
        raise EOFError("bytes that are no member follow its last one")
    yield from _zlib(reader, members.start)


def decompress_own_gzip(reader: Buffered, workers: int) -> Iterator[Piece]:
    """Decompress gzip that relbuild has made here.

    Bytes behind a member's deflate stream are not looked for, which takes a sixth longer.
    """
    return _gunzip(reader, workers, _own_member)


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
    data = start + reader.read(READ_SIZE)
    while data:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            if not data:
                raise EOFError("it ends too early")
            if piece := stream.decompress(data, PIECE):
                yield piece
            data = stream.unconsumed_tail or (b"" if stream.eof else reader.read(READ_SIZE))
        data = stream.unused_data or reader.read(READ_SIZE)
        if data.startswith(b"\0"):
            _require_padding(reader, data)
            return


def _require_padding(reader: Buffered, data: bytes) -> None:
    """Raise if anything but zeros follows the last member: those are padding (gzip(1))."""
    while data:
        if data.strip(b"\0"):
            raise EOFError("bytes that are no member follow its last one")
        data = reader.read(READ_SIZE)


# --- zstd ----------------------------------------------------------------------------------------------


def zstd_frame(piece: bytes | memoryview) -> bytes:
    """Compress `piece` to one zstd frame with the content's size and checksum, in one thread."""
    import zstandard

    compressor = zstandard.ZstdCompressor(
        level=ZSTD_LEVEL, write_checksum=True, write_content_size=True, write_dict_id=False, threads=0
    )
    return compressor.compress(piece)


def _zstd_stream() -> PieceStream:
    """Begin a zstd frame with a checksum and matches over the whole window, in one thread."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_STREAM_LEVEL,
        window_log=ZSTD_WINDOW_LOG,
        enable_ldm=True,
        write_checksum=True,
        write_content_size=True,
        write_dict_id=False,
        threads=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


def _zstd_version() -> str:
    import zstandard

    return f"zstd-{'.'.join(str(part) for part in zstandard.ZSTD_VERSION)}-{ZSTD_STREAM_LEVEL}-window{ZSTD_WINDOW_LOG}"


def _is_zstd(start: bytes) -> bool:
    """Return whether a stream begins with a frame or a skippable frame (RFC 8878, 3.1)."""
    return start.startswith(b"\x28\xb5\x2f\xfd") or start[1:4] == b"\x2a\x4d\x18"


def _unzstd(reader: Buffered, _: int) -> Iterator[bytes]:
    """Decompress any zstd frames."""
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        reader, read_size=READ_SIZE, read_across_frames=True, closefd=False
    )
    while piece := stream.read(READ_SIZE):
        yield piece
        del piece


# --- xz, bzip2 -----------------------------------------------------------------------------------------


class _Stream(Protocol):
    """Protocol of lzma's and bz2's decompressors."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _streams(reader: Buffered, make: Callable[[], _Stream]) -> Iterator[bytes]:
    """Decompress concatenated xz or bzip2 streams.

    A decompressor keeps output beyond `max_length` for its next call.
    """
    data = reader.read(READ_SIZE)
    while data:
        stream = make()
        while True:
            if piece := stream.decompress(data, PIECE):
                yield piece
            if stream.eof:
                break
            data = reader.read(READ_SIZE) if stream.needs_input else b""
            if stream.needs_input and not data:
                raise EOFError("it ends too early")
        data = stream.unused_data or reader.read(READ_SIZE)


def _unxz(reader: Buffered, _: int) -> Iterator[bytes]:
    import lzma

    return _streams(reader, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY))


def _unlzma(reader: Buffered, _: int) -> Iterator[bytes]:
    import lzma

    return _streams(reader, lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY))


def _bunzip2(reader: Buffered, _: int) -> Iterator[bytes]:
    import bz2

    return _streams(reader, bz2.BZ2Decompressor)


GZIP = Codec("gzip", (".gz", ".tgz"), ("gzip", "x-gzip"), lambda start: start.startswith(_MAGIC), _gunzip)
ZSTD = Codec("zstd", (".zst",), ("zstd",), _is_zstd, _unzstd)
XZ = Codec("xz", (".xz",), ("xz",), lambda start: start.startswith(b"\xfd7zXZ\x00"), _unxz)
BZIP2 = Codec("bzip2", (".bz2",), ("bzip2",), lambda start: start.startswith(b"BZh"), _bunzip2)

LZMA = Codec("lzma", (".lzma",), ("lzma",), lambda start: start.startswith(b"]\0\0"), _unlzma)
"""The form before xz. Its streams have no magic number, so who reads one says so."""

CODECS = (GZIP, ZSTD, XZ, BZIP2)
"""All codecs that can be decompressed wherever a stream is detected by its first bytes."""
