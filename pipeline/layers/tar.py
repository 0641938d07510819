"""A layer's tar bytes: POSIX ustar, with pax records only where ustar cannot say it (POSIX.1-2017, pax).

The same entry always gives the same bytes: no user names, no access times, nothing of the machine. Reading is
strict: what relbuild and other image tools write is read, anything unclear is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.errors import VerificationError
from pipeline.model.tree import Entry, Kind
from pipeline.trees import split_path

BLOCK = 512
END = bytes(2 * BLOCK)
"""What stands after the last entry."""

XATTR = "SCHILY.xattr."
"""How pax records for extended attributes begin (image-spec layer.md follows tar implementations in this)."""

PAX_LIMIT = 1 << 20
"""Bytes of pax records per entry: room for two paths and every attribute that a file system stores."""

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_SMALL = 0o7777777
_LARGE = 0o77777777777
_MAGIC, _VERSION = b"ustar\0", b"00"

_TYPES = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_KINDS = {value: kind for kind, value in _TYPES.items()} | {b"\0": Kind.FILE, b"7": Kind.FILE}
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"


# --- writing -------------------------------------------------------------------------------------------


def tar_header(entry: Entry) -> bytes:
    """The blocks that stand before an entry's content; after `entry.size` bytes of it comes `padding`."""
    name = _encoded(entry.path or ".") + (b"/" if entry.kind is Kind.DIRECTORY else b"")
    link = _encoded(entry.link)
    size = entry.size if entry.kind is Kind.FILE else 0
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
        if not 0 <= value <= (_SMALL if key in (b"uid", b"gid") else _LARGE):
            records.append((key, str(value).encode()))
            numbers[key] = 0
    records.extend((XATTR.encode() + _encoded(key), value) for key, value in entry.xattrs)
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
    """What fills a content of `size` bytes up to whole blocks."""
    return bytes(-size % BLOCK)


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
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    title = b"PaxHeaders.0/" + _ascii(name.rstrip(b"/").rpartition(b"/")[2])[:80]
    return _block((b"", title), mode=0o644, size=len(body), kind=_PAX) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar holds them, None if it cannot."""
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
class Member:
    """One entry of a tar stream. `pieces` gives its content, once, before the next member is asked for."""

    entry: Entry
    pieces: Callable[[], Iterator[memoryview]]


def read_tar(pieces: Iterator[bytes], name: str) -> Iterator[Member]:
    """The members of a tar stream, to its end; what follows the end marker is read and dropped.

    Paths come out canonical in form; whether they lie beneath a symlink is for who uses them. Whiteouts come
    out as the kinds WHITEOUT (at the hidden path) and OPAQUE (at the directory). `name` is for errors. Raises
    VerificationError `layer-malformed`, BuildError `unsafe-path`.
    """
    source = _Source(pieces, name)
    records: dict[bytes, bytes] = {}
    everywhere: dict[bytes, bytes] = {}
    while True:
        block = source.exactly(BLOCK)
        if not block or not any(block):
            for _ in pieces:
                pass
            return
        fields = _fields(block, name)
        kind, size = fields[7], _number(fields[4], name)
        if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
            if size > PAX_LIMIT:
                raise _malformed(name, f"an extended header has {size} bytes")
            body = source.exactly(size)
            source.skip(-size % BLOCK)
            if kind == _PAX:
                records.update(_records(body, name))
            elif kind == _PAX_GLOBAL:
                everywhere.update(_records(body, name))
            else:
                records[b"path" if kind == _GNU_NAME else b"linkpath"] = body.rstrip(b"\0")
            continue
        entry = _entry(fields, {**everywhere, **records}, name)
        records = {}
        content = source.content(entry.size if entry.kind is Kind.FILE else 0)
        yield Member(entry, content.pieces)
        content.finish()


class _Source:
    """Bytes from pieces, by exact counts."""

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._rest = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """Between 1 and `most` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return self._rest
            self._rest = memoryview(piece)
        taken, self._rest = self._rest[:most], self._rest[most:]
        return taken

    def exactly(self, count: int) -> bytes:
        """`count` bytes, or none at the end of the stream."""
        taken = self.some(count)
        if len(taken) == count:
            return bytes(taken)
        parts, left = [bytes(taken)], count - len(taken)
        while left and (taken := self.some(left)):
            parts.append(bytes(taken))
            left -= len(taken)
        if left and left != count:
            raise _malformed(self._name, "it ends in the middle of an entry")
        return b"".join(parts)

    def skip(self, count: int) -> None:
        left = count
        while left:
            taken = self.some(left)
            if not taken:
                raise _malformed(self._name, "it ends in the middle of an entry")
            left -= len(taken)

    def content(self, size: int) -> _Content:
        return _Content(self, size, self._name)


class _Content:
    def __init__(self, source: _Source, size: int, name: str) -> None:
        self._source = source
        self._left = size
        self._padding = -size % BLOCK
        self._name = name

    def pieces(self) -> Iterator[memoryview]:
        while self._left:
            taken = self._source.some(self._left)
            if not taken:
                raise _malformed(self._name, "it ends in the middle of a file")
            self._left -= len(taken)
            yield taken

    def finish(self) -> None:
        self._source.skip(self._left + self._padding)


def _fields(block: bytes, name: str) -> tuple[bytes, ...]:
    fields = _HEADER.unpack(block)
    stated = _number(fields[6], name)
    if stated != sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20:
        raise _malformed(name, "a header's checksum does not match")
    return fields


def _number(field: bytes, name: str) -> int:
    if field[0] & 0x80:  # GNU base 256, for what octal digits cannot hold.
        return int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
    text = field.strip(b"\0 ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise _malformed(name, f"{text!r} is no number") from None


def _records(body: bytes, name: str) -> dict[bytes, bytes]:
    records = {}
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 12)
        digits = body[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length < 5 or at + length > len(body) or record[-1:] != b"\n" or not equals:
            raise _malformed(name, "a pax record is not one")
        records[key] = value
        at += length
    return records


def _entry(fields: tuple[bytes, ...], records: dict[bytes, bytes], name: str) -> Entry:
    kind = _KINDS.get(fields[7])
    if kind is None:
        raise _malformed(name, f"an entry has the unknown type {fields[7]!r}")
    path = records.get(b"path")
    if path is None:
        path = fields[0].rstrip(b"\0")
        if fields[9] == _MAGIC and (prefix := fields[15].rstrip(b"\0")):
            path = prefix + b"/" + path
    if kind is Kind.FILE and path.endswith(b"/"):
        kind = Kind.DIRECTORY
    link = records.get(b"linkpath", fields[8].rstrip(b"\0")).decode(errors="surrogateescape")

    def number(key: bytes, field: bytes) -> int:
        if key not in records:
            return _number(field, name)
        whole = records[key].partition(b".")[0]
        if not whole.removeprefix(b"-").isdigit():
            raise _malformed(name, f"{records[key]!r} is no number")
        return int(whole)

    size = number(b"size", fields[4])
    if size < 0:
        raise _malformed(name, "an entry's size is negative")
    where, kind = _place(path, kind)
    return Entry(
        path=where,
        kind=kind,
        mode=_number(fields[1], name) & 0o7777,
        uid=number(b"uid", fields[2]),
        gid=number(b"gid", fields[3]),
        mtime=number(b"mtime", fields[5]),
        size=size if kind is Kind.FILE else 0,
        link=_relative(link) if kind is Kind.HARDLINK else link if kind is Kind.SYMLINK else "",
        xattrs=tuple(
            sorted(
                (key[len(XATTR) :].decode(errors="surrogateescape"), value)
                for key, value in records.items()
                if key.startswith(XATTR.encode())
            )
        ),
        device=(_number(fields[13], name), _number(fields[14], name))
        if kind in (Kind.CHARACTER, Kind.BLOCK)
        else (0, 0),
    )


def _place(path: bytes, kind: Kind) -> tuple[str, Kind]:
    """The canonical path, and whether the name means a whiteout."""
    text = path.decode(errors="surrogateescape")
    parent, _, last = text.rstrip("/").rpartition("/")
    if last == ".wh..wh..opq":
        return _relative(parent), Kind.OPAQUE
    if last == ".wh.":
        raise VerificationError("layer-malformed", f"'{text}' is a whiteout of nothing")
    if last.startswith(".wh."):
        return _relative(f"{parent}/{last[4:]}" if parent else last[4:]), Kind.WHITEOUT
    return _relative(text), kind


def _relative(path: str) -> str:
    trimmed = path.removeprefix("./").rstrip("/") if path not in (".", "./") else ""
    return "/".join(split_path(f"/{trimmed}"))


def _malformed(name: str, why: str) -> VerificationError:
    return VerificationError("layer-malformed", f"{name} is no layer that can be read: {why}", place=name)
