"""Codecs (gzip, zstd, xz, bzip2): detect and decompress streams, compress layer pieces.

Each codec has one declaration.

A layer's tar bytes are cut into pieces of at most `PIECE` bytes. With gzip each piece becomes a whole member
(RFC 1952); with zstd the pieces of one segment become one frame (RFC 8878), whose long-distance matcher finds what a
package has several times. Members and frames concatenate into valid streams, so compressed segments are kept and
concatenated without being compressed again, and made in parallel without the number of cores affecting the bytes.

gzip is made by libdeflate, which is 3 to 4 times faster than zlib at the same size: measured on one core with
8 MiB of shared libraries, libdeflate 5 compresses 111 MB/s to 37.1 % (zlib 6: 29 MB/s to 37.4 %) and
decompresses 700 MB/s (zlib: 240 MB/s); zstd 3 compresses 244 MB/s to 38.5 % and decompresses 960 MB/s. Both
release Python's lock: two threads do twice the work in the same time. Members are in `gzip_members`.

A codec of layers is a member of `Compression` and a `LayerCodec`; both are declared here, and nothing else lists them.
The libraries are imported when they are used.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol, TypeAlias, assert_never

from pipeline.gzip_members import GZIP_MAGIC, MEMBER_CONTENT, decompress_gzip, gzip_member, gzip_parts
from pipeline.input_slices import Buffered, InputSlices
from pipeline.lazy_dataclasses import dataclass

Piece: TypeAlias = bytes | bytearray
"""Bytes, compressed or not, as the library gives them: making others of a layer's would copy all of it."""

PIECE = MEMBER_CONTENT
"""Bytes of tar per member or frame: large enough to cost next to nothing in size, small enough that the dozen
that are in flight on two cores take 50 MB."""

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
_XZ_PADDING = 4
"""Bytes that padding between and behind xz streams is a multiple of (The .xz File Format, 2.2)."""
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


def _deflate_version() -> str:
    import deflate

    return f"deflate-{deflate.__version__}"


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
    def decompress(self, data: memoryview, max_length: int = -1, /) -> bytes: ...


def _streams(reader: Buffered, make: Callable[[], _Stream], padding: int = 0) -> Iterator[bytes]:
    """Decompress concatenated xz or bzip2 streams.

    A decompressor keeps output beyond `max_length` for its next call. Behind a stream there may be zero bytes in
    multiples of `padding`, if that is not 0.
    """
    slices = InputSlices(reader)
    while slices.begin_stream():
        stream = make()
        data = slices.next()
        while True:
            if piece := stream.decompress(data, PIECE):
                yield piece
            if stream.eof:
                break
            data = slices.next() if stream.needs_input else memoryview(b"")
            if stream.needs_input and not data:
                raise EOFError("it ends too early")
        slices.give_back(len(stream.unused_data))
        if padding and slices.skip_zeros() % padding:
            raise EOFError(f"its padding is no multiple of {padding} bytes")


def _unxz(reader: Buffered, _: int) -> Iterator[bytes]:
    import lzma

    return _streams(reader, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY), _XZ_PADDING)


def _unlzma(reader: Buffered, _: int) -> Iterator[bytes]:
    import lzma

    return _streams(reader, lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY))


def _bunzip2(reader: Buffered, _: int) -> Iterator[bytes]:
    import bz2

    return _streams(reader, bz2.BZ2Decompressor)


GZIP = Codec("gzip", (".gz", ".tgz"), ("gzip", "x-gzip"), lambda start: start.startswith(GZIP_MAGIC), decompress_gzip)
ZSTD = Codec("zstd", (".zst",), ("zstd",), _is_zstd, _unzstd)
XZ = Codec("xz", (".xz",), ("xz",), lambda start: start.startswith(b"\xfd7zXZ\x00"), _unxz)
BZIP2 = Codec("bzip2", (".bz2",), ("bzip2",), lambda start: start.startswith(b"BZh"), _bunzip2)

LZMA = Codec("lzma", (".lzma",), ("lzma",), lambda start: start.startswith(b"]\0\0"), _unlzma)
"""The form before xz. Its streams have no magic number, so who reads one says so."""

CODECS = (GZIP, ZSTD, XZ, BZIP2)
"""All codecs that can be decompressed wherever a stream is detected by its first bytes."""
