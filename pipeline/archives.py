"""Readers of archive streams (tar, cpio, zip) by libarchive: headers and content only.

libarchive only parses: nothing here creates a file. Formats are enabled one by one, and so are filters: streams are
decompressed by `pipeline.streams`, whose memory and output have bounds, but for the few codecs that only libarchive
has. Headers are returned as bytes, exactly as in the archive, whatever the process's locale is: libarchive converts
names to the locale and normalises them, except where it cannot, so headers are read under a fixed locale of the thread.

`libarchive-c` loads the shared library; its own iteration over entries is not used, because it drops extended
attributes, names that are not UTF-8, and the holes of sparse files.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import ModuleType
from typing import BinaryIO, NamedTuple

from pipeline.compression import Piece
from pipeline.errors import EnvironmentLacking

ARCHIVE_HEADER_LIMIT = 16 << 20
"""Bytes that are read for one entry's header: several pieces of a stream, the last of which may begin with it. Linux
limits names to 4 KiB and attributes to 64 KiB; libarchive would keep up to 1 GiB of them in memory."""

_LC_CTYPE_MASK = 1
_ZIP_PIECE = 1 << 16


class ArchiveFormat(Enum):
    """The formats that can be enabled."""

    TAR = "tar"
    CPIO = "cpio"
    ZIP = "zip_seekable"


class ArchiveFilter(Enum):
    """The codecs that can be enabled: those that `pipeline.streams` lacks."""

    COMPRESS = "compress"
    LZ4 = "lz4"
    LZIP = "lzip"
    LZMA = "lzma"


class MalformedArchive(Exception):
    """The stream is no archive of an enabled format, or a damaged one. The text says why."""


class ArchiveHeader(NamedTuple):
    """The header of one archive entry.

    `mode` includes the file type bits, which are 0 for hard links. `hardlink` and `symlink` are None for other types.
    `sparse`: the content has holes. `has_acl`: the entry has an access control list. `encrypted`: the content is.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    hardlink: bytes | None
    symlink: bytes | None
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    sparse: bool
    has_acl: bool
    encrypted: bool


class ArchiveMember(NamedTuple):
    """One entry of an archive.

    `blocks` yields its content as (offset, block), once, before the next member is read.
    """

    header: ArchiveHeader
    blocks: Callable[[], Iterator[tuple[int, memoryview]]]


def libarchive_version() -> str:
    """Return the shared library's version. Raises EnvironmentLacking `library-missing`."""
    number = int(_library().version_number())
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def read_archive(
    pieces: Iterator[Piece], *formats: ArchiveFormat, packed: ArchiveFilter | None = None
) -> Iterator[ArchiveMember]:
    """Yield the members of an archive of one of the `formats`, in its order.

    Nothing after the end marker is read from `pieces`.

    Raises MalformedArchive, EnvironmentLacking `library-missing`, and whatever `pieces` raises.
    """
    stream = _Stream(pieces, _library())
    with stream.opened(formats, packed):
        while (header := stream.next_header()) is not None:
            yield ArchiveMember(header, stream.blocks)


def read_zip(file: BinaryIO) -> Iterator[ArchiveMember]:
    """Yield the members of a zip archive; it needs a seekable file. Raises as `read_archive`."""
    stream = _Stream(iter(lambda: file.read(_ZIP_PIECE), b""), _library(), file.seek)
    with stream.opened((ArchiveFormat.ZIP,), None):
        while (header := stream.next_header()) is not None:
            yield ArchiveMember(header, stream.blocks)


def _address(piece: Piece) -> int:
    if isinstance(piece, bytes):
        return ctypes.cast(ctypes.c_char_p(piece), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(piece))


class _Stream:
    """An open archive: libarchive's handle, its callbacks, and the piece that it reads from."""

    def __init__(
        self, pieces: Iterator[Piece], library: ModuleType, seek: Callable[[int, int], int] | None = None
    ) -> None:
        self._pieces = pieces
        self._seek = seek
        self._library = library
        self._piece: Piece = b""
        self._start = 0
        self._header_left: int | None = None
        self._left = 0
        self._encrypts = False
        self._block = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
        self._block_places = tuple(map(ctypes.byref, self._block))
        self._error: BaseException | None = None
        self._handle: object = None
        self._entry: object = None
        self._locale: object = None

    @contextmanager
    def opened(self, formats: Sequence[ArchiveFormat], packed: ArchiveFilter | None) -> Iterator[None]:
        """Open the archive for the block; free libarchive's objects at its end."""
        library = self._library
        self._encrypts = ArchiveFormat.ZIP in formats
        self._locale = _locale(self._encrypts)
        read, seek = library.READ_CALLBACK(self._read_callback), library.SEEK_CALLBACK(self._seek_callback)
        self._handle = library.read_new()
        try:
            self._entry = library.entry_new()
            self._enable(library.get_read_filter_function, packed.value if packed else "none")
            for one in formats:
                self._enable(library.get_read_format_function, one.value)
            if self._seek is not None:
                self._call(library.read_set_seek_callback, self._handle, seek)
            self._call(library.read_open, self._handle, None, library.NO_OPEN_CB, read, library.NO_CLOSE_CB)
            yield
        finally:
            if self._entry is not None:
                library.entry_free(self._entry)
            library.read_free(self._handle)

    def _enable(self, find: Callable[[str], Callable[..., int]], name: str) -> None:
        """Enable a format or filter, unless the library would start a program for it."""
        try:
            enabled = self._call(find(name), self._handle) == self._library.ARCHIVE_OK
        except ValueError:
            enabled = False
        if not enabled:
            raise MalformedArchive(f"this machine's libarchive cannot read its format ({name})")

    def _seek_callback(self, handle: object, context: object, offset: int, whence: int) -> int:
        """Seek in the file, called by libarchive. Exceptions as with `_read_callback`."""
        try:
            assert self._seek is not None
            return self._seek(offset, whence)
        except BaseException as error:
            self._error = error
            return -1

    def _read_callback(self, handle: object, context: object, where: ctypes.Array[ctypes.c_void_p]) -> int:
        """Give libarchive the next piece, which it reads from until the next call.

        An exception must not propagate through C: it is kept, and raised when libarchive has returned.
        """
        try:
            for piece in self._pieces:
                if piece:
                    if self._header_left is not None:
                        self._header_left -= len(piece)
                        if self._header_left < 0:
                            raise MalformedArchive(f"the headers of an entry exceed {ARCHIVE_HEADER_LIMIT >> 20} MiB")
                    self._piece = piece
                    self._start = _address(piece)
                    where[0] = self._start
                    return len(piece)
        except BaseException as error:
            self._error = error
            return -1
        return 0

    def _call(self, function: Callable[..., int], *arguments: object) -> int:
        try:
            status = function(*arguments)
        except self._library.ArchiveError as error:
            if self._error is not None:
                raise self._error from None
            raise MalformedArchive(error.msg or "it cannot be read") from None
        if self._error is not None:
            raise self._error
        return int(status)

    def next_header(self) -> ArchiveHeader | None:
        """Read the next entry's header; None at the end."""
        library, entry = self._library, self._entry
        if self._left:
            self._call(library.read_data_skip, self._handle)
        before = _libc().uselocale(self._locale)
        self._header_left = ARCHIVE_HEADER_LIMIT
        try:
            status = self._call(library.read_next_header2, self._handle, entry)
        finally:
            self._header_left = None
            _libc().uselocale(before)
        if status == library.ARCHIVE_EOF:
            return None
        if status == library.ARCHIVE_WARN:
            self._judge_warning()
        path, mode = library.entry_pathname(entry), library.entry_mode(entry) & 0o177777
        if path is None:
            raise MalformedArchive("an entry has no name")
        kind = stat.S_IFMT(mode)
        device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        size = self._left = library.entry_size(entry)
        return ArchiveHeader(
            path,
            mode,
            library.entry_uid(entry),
            library.entry_gid(entry),
            library.entry_mtime(entry),
            size,
            library.entry_hardlink(entry),
            library.entry_symlink(entry) if kind == stat.S_IFLNK else None,
            (library.entry_rdevmajor(entry), library.entry_rdevminor(entry)) if device else (0, 0),
            self._xattrs() if library.entry_xattr_reset(entry) else (),
            size > 0 and library.entry_sparse_count(entry) > 0,
            library.entry_acl_types(entry) != 0,
            self._encrypts and library.entry_is_data_encrypted(entry) > 0,
        )

    def _judge_warning(self) -> None:
        """Raise MalformedArchive for a warning of libarchive, but for a name that is not converted."""
        message = self._library.error_string(self._handle) or b""
        if b"can't be converted from UTF-8" not in message:
            raise MalformedArchive(message.decode(errors="replace") or "a header is damaged")

    def _xattrs(self) -> tuple[tuple[bytes, bytes], ...]:
        library, entry = self._library, self._entry
        name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
        found: dict[bytes, bytes] = {}
        while (
            library.entry_xattr_next(entry, ctypes.byref(name), ctypes.byref(value), ctypes.byref(size))
            == library.ARCHIVE_OK
        ):
            key = name.value or b""
            content = ctypes.string_at(value, size.value) if value.value else b""
            if found.setdefault(key, content) != content:
                raise MalformedArchive(f"an entry has the attribute {key!r} twice")
        return tuple(sorted(found.items()))

    def blocks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield the content of the current entry; blocks within the current piece are not copied."""
        library, handle, end = self._library, self._handle, self._left
        address, size, offset = self._block
        while self._left:
            status = self._call(library.read_data_block, handle, *self._block_places)
            if status == library.ARCHIVE_EOF:
                self._left = 0
                return
            if status == library.ARCHIVE_WARN:
                self._judge_warning()
            length = size.value
            if not length:
                continue
            at = (address.value or 0) - self._start
            if at >= 0 and at + length <= len(self._piece):
                block = memoryview(self._piece)[at : at + length]
            else:
                block = memoryview(ctypes.string_at(address, length))
            self._left = max(0, end - offset.value - length)
            yield offset.value, block


def load_archive_library() -> None:
    """Load the library now, beside other work: it takes 10 to 20 ms.

    Raises EnvironmentLacking `library-missing`.
    """
    _library()


@functools.cache
def _library() -> ModuleType:
    """Return `libarchive.ffi` with further functions declared.

    Raises EnvironmentLacking `library-missing`.
    """
    try:
        import libarchive
        from libarchive import ffi
    except (ImportError, OSError, AttributeError) as error:
        raise EnvironmentLacking(
            "library-missing",
            f"archives cannot be read, because the shared library libarchive cannot be loaded: {error}",
            hint="install it: the package is libarchive13 on Debian 12, libarchive on Fedora and EL",
        ) from error
    # libarchive-c logs warnings, which Python would print; `_judge_warning` handles them.
    logging.getLogger("libarchive").setLevel(logging.ERROR)
    ffi.ArchiveError = libarchive.ArchiveError
    pointer = ctypes.c_void_p
    ffi.ffi("entry_xattr_reset", [pointer], ctypes.c_int)
    ffi.ffi(
        "entry_xattr_next",
        [pointer, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t)],
        ctypes.c_int,
    )
    ffi.ffi("entry_sparse_count", [pointer], ctypes.c_int)
    ffi.ffi("entry_acl_types", [pointer], ctypes.c_int)
    ffi.ffi("entry_is_data_encrypted", [pointer], ctypes.c_int)
    module: ModuleType = ffi
    return module


@functools.cache
def _libc() -> ctypes.PyDLL:
    libc = ctypes.PyDLL(None)
    libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    libc.newlocale.restype = ctypes.c_void_p
    libc.uselocale.argtypes = [ctypes.c_void_p]
    libc.uselocale.restype = ctypes.c_void_p
    return libc


@functools.cache
def _locale(is_zip: bool) -> object:
    """Return the locale under which headers are read.

    For tar and cpio it is "C", in which non-ASCII names cannot be converted and libarchive returns their bytes; for
    zip, whose reader has no such fallback, UTF-8.
    """
    wanted = b"C.UTF-8" if is_zip else b"C"
    return _libc().newlocale(_LC_CTYPE_MASK, wanted, None) or _libc().newlocale(_LC_CTYPE_MASK, b"C", None)
