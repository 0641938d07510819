"""Layer tar streams: reproducible ustar/pax headers to write, validated members to read.

The formats are those of POSIX.1-2017, pax. The same entry always gives the same bytes: there are no user names, no
access times, nothing of the machine. Streams are parsed by libarchive (`pipeline.archives`); entries that layers must
not have, or that are ambiguous, are refused here.
"""

from __future__ import annotations

import functools
import itertools
import stat
import struct
import zlib
from collections.abc import Callable, Iterator

from pipeline.archives import ArchiveFormat, ArchiveHeader, ArchiveMember, MalformedArchive, read_archive
from pipeline.compression import Piece
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind
from pipeline.trees import split_path

TAR_BLOCK = 512
TAR_END = bytes(2 * TAR_BLOCK)
"""The end marker after the last entry."""

XATTR_RECORD_PREFIX = "SCHILY.xattr."
"""Prefix of pax records for extended attributes (image-spec layer.md follows tar implementations in this)."""

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_MAX_7_OCTAL = 0o7777777
_MAX_11_OCTAL = 0o77777777777
_MAGIC, _VERSION = b"ustar\0", b"00"

_TYPES = {
    EntryKind.FILE: b"0",
    EntryKind.HARDLINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.CHARACTER: b"3",
    EntryKind.BLOCK: b"4",
    EntryKind.DIRECTORY: b"5",
    EntryKind.FIFO: b"6",
}
_PAX = b"x"
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFCHR: EntryKind.CHARACTER,
    stat.S_IFBLK: EntryKind.BLOCK,
}
XATTRS_LIMIT = 1 << 20
"""Bytes of extended attributes of one entry: sixteen of the largest that Linux stores (xattr(7))."""
OWNER_LIMIT = (1 << 32) - 2
"""The largest owner: the kernel's numbers have 32 bits, and all of them set means none (chown(2))."""


# --- writing -------------------------------------------------------------------------------------------


def tar_header(entry: Entry) -> bytes:
    """Return the header blocks of an entry.

    They are followed by `entry.size` bytes of content and `padding`.
    """
    name = _encoded(entry.path or ".") + (b"/" if entry.kind is EntryKind.DIRECTORY else b"")
    link = _encoded(entry.link)
    size = entry.size if entry.kind is EntryKind.FILE else 0
    records: list[tuple[bytes, bytes]] = []
    short = _split_name(name)
    if short is None:
        records.append((b"path", name))
        short = (b"", _ascii(name)[:100])
    if len(link) > 100 or not link.isascii():
        records.append((b"linkpath", link))
        link = _ascii(link)[:100]
    numbers = {b"uid": entry.uid, b"gid": entry.gid, b"size": size, b"mtime": entry.mtime}
    for key, value in numbers.items():
        if not 0 <= value <= (_MAX_7_OCTAL if key in (b"uid", b"gid") else _MAX_11_OCTAL):
            records.append((key, str(value).encode()))
            numbers[key] = 0
    records.extend((XATTR_RECORD_PREFIX.encode() + _encoded(key), value) for key, value in entry.xattrs)
    block = _block(
        short,
        mode=entry.mode & 0o7777,
        uid=numbers[b"uid"],
        gid=numbers[b"gid"],
        size=numbers[b"size"],
        mtime=numbers[b"mtime"],
        kind=_TYPES[entry.kind],
        link=link,
        device=entry.device,
    )
    return _pax(name, records) + block if records else block


def padding(size: int) -> bytes:
    """Return the zero bytes after a content of `size` bytes, up to a whole block."""
    return bytes(-size % TAR_BLOCK)


def _block(
    name: tuple[bytes, bytes],
    *,
    mode: int,
    size: int,
    kind: bytes,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    block = bytearray(
        _HEADER.pack(
            name[1],
            b"%07o" % mode,
            b"%07o" % uid,
            b"%07o" % gid,
            b"%011o" % size,
            b"%011o" % mtime,
            b" " * 8,
            kind,
            link,
            _MAGIC,
            _VERSION,
            b"",
            b"",
            b"%07o" % device[0],
            b"%07o" % device[1],
            name[0],
        )
    )
    # The lower half of an Adler-32 is one more than the sum of the bytes, modulo 65521 (RFC 1950); here that is less,
    # since names, of at most 355 bytes, and numbers are ASCII. Adding them up one by one takes half of a header's time.
    block[_CHECKSUM] = b"%06o\0 " % ((zlib.adler32(block) & 0xFFFF) - 1)
    return bytes(block)


def _pax(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    title = b"PaxHeaders.0/" + _ascii(name.rstrip(b"/").rpartition(b"/")[2])[:80]
    return _block((b"", title), mode=0o644, size=len(body), kind=_PAX) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """Return the pax record `LENGTH key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a path into ustar's (prefix, name); None if it does not fit."""
    if not name.isascii():
        return None
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return None
    cut = name.find(b"/", len(name) - 101)
    if cut <= 0 or cut > 155 or cut == len(name) - 1:
        return None
    return name[:cut], name[cut + 1 :]


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _ascii(name: bytes) -> bytes:
    return bytes(value if value < 128 else 0x3F for value in name)


# --- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TarMember:
    """One entry of a tar stream.

    `pieces` yields its content, once, before the next member is read.
    """

    entry: Entry
    pieces: Callable[[], Iterator[memoryview]]


def read_tar(pieces: Iterator[Piece], name: str) -> Iterator[TarMember]:
    """Yield the members of a tar stream; data after the end marker is read and dropped.

    Paths are canonical in form; whether one is beneath a symlink is for the caller to check. Whiteouts become entries
    of kinds WHITEOUT (at the hidden path) and OPAQUE (at the directory). `name` is for errors. Raises
    VerificationError `layer-malformed`, BuildError `unsafe-path`, EnvironmentLacking `library-missing`.
    """
    first = next(pieces, None)
    if first is None:
        return
    try:
        for member in read_archive(itertools.chain((first,), pieces), ArchiveFormat.TAR):
            entry = _entry(member.header, name)
            yield TarMember(entry, functools.partial(_content, member, entry.size, name))
    except MalformedArchive as error:
        raise _malformed(name, str(error)) from None
    for _ in pieces:
        pass


def _content(member: ArchiveMember, size: int, name: str) -> Iterator[memoryview]:
    """Yield the content of a file; raise if it has holes."""
    if not size:
        return
    at = 0
    try:
        for offset, piece in member.blocks():
            if offset != at:
                break
            at += len(piece)
            yield piece
    except MalformedArchive as error:
        raise _malformed(name, str(error)) from None
    if at != size:
        raise _malformed(
            name,
            f"/{member.header.path.decode(errors='replace')} does not have the {size} bytes that its header announces",
        )


def _entry(header: ArchiveHeader, name: str) -> Entry:
    kind = EntryKind.HARDLINK if header.hardlink is not None else _KINDS.get(stat.S_IFMT(header.mode))
    if kind is None or (wrong := _refused(header)):
        why = wrong if kind else "is of an unknown type"
        raise _malformed(name, f"'{header.path.decode(errors='replace')}' {why}")
    link = _text(header.hardlink or header.symlink or b"")
    where, kind = _place(header.path, kind)
    return Entry(
        path=where,
        kind=kind,
        mode=header.mode & 0o7777,
        uid=header.uid,
        gid=header.gid,
        mtime=header.mtime,
        size=header.size if kind is EntryKind.FILE else 0,
        link=_relative(link) if kind is EntryKind.HARDLINK else link if kind is EntryKind.SYMLINK else "",
        xattrs=tuple(sorted((_text(key), value) for key, value in header.xattrs)) if header.xattrs else (),
        device=header.device,
    )


def _refused(header: ArchiveHeader) -> str:
    """Return why layers must not have such an entry, "" if they may."""
    if header.sparse:
        # image-spec layer.md: "Sparse files SHOULD NOT be used because they lack consistent support across tar
        # implementations." A kilobyte of them can stand for any size.
        return "is a sparse file"
    if header.has_acl:
        return "has an access control list in a format that image tools do not read"
    if not (0 <= header.uid <= OWNER_LIMIT and 0 <= header.gid <= OWNER_LIMIT):
        return f"has an invalid owner {header.uid}:{header.gid}"
    if header.size < 0:
        return "has a negative size"
    if header.xattrs and sum(len(key) + len(value) for key, value in header.xattrs) > XATTRS_LIMIT:
        return f"has more than {XATTRS_LIMIT} bytes of extended attributes"
    return ""


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _place(path: bytes, kind: EntryKind) -> tuple[str, EntryKind]:
    """Return the canonical path and the kind, which a name may make a whiteout."""
    text = _text(path)
    parent, _, last = text.rstrip("/").rpartition("/")
    if last == ".wh..wh..opq":
        return _relative(parent), EntryKind.OPAQUE
    if last == ".wh.":
        raise VerificationError("layer-malformed", f"'{text}' is a whiteout without a name")
    if last.startswith(".wh."):
        return _relative(f"{parent}/{last[4:]}" if parent else last[4:]), EntryKind.WHITEOUT
    return _relative(text), kind


def _relative(path: str) -> str:
    trimmed = path.removeprefix("./").rstrip("/") if path not in (".", "./") else ""
    return "/".join(split_path(f"/{trimmed}"))


def _malformed(name: str, why: str) -> VerificationError:
    return VerificationError("layer-malformed", f"layer '{name}' cannot be read: {why}", place=name)
