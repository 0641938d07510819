"""Find the offsets of header and payload in an RPM file, and check the signed region.

An RPM file is a lead of 96 bytes, a signature header padded to 8 bytes, the header, the compressed payload
(rpm, docs/manual/format_v4.md). A header is an introduction, an index of entries of 16 bytes, and a store of
data. Its first entry is a region that says how much of the index was there when the header was made; entries
outside of it are not covered by the signature, so a header with such entries is refused.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass

_LEAD = 96
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"
_INTRODUCTION = struct.Struct(">8sII")
_ENTRY = struct.Struct(">iIiI")
_REGION_TAG = 63
_BINARY = 7

HEADER_ENTRIES_LIMIT = 0xFFFF
"""Entries of a header's index: rpm's own bound."""
HEADER_DATA_LIMIT = 256 << 20
"""Bytes of a header's data: rpm's own bound."""


@dataclass(frozen=True, slots=True)
class RpmFileLayout:
    """Offsets in bytes from the start of the file."""

    header: int
    payload: int


def read_rpm_layout(path: Path) -> RpmFileLayout:
    """Read where the header and the payload of the RPM at `path` begin.

    Raises VerificationError `package-damaged` if the file is no RPM or its header is not all region.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.pread(handle, 4, 0) != _LEAD_MAGIC:
            raise package_damaged(path, "it is not an RPM package")
        header = _LEAD + _size(handle, _LEAD, path)
        header += -header % 8
        size = _size(handle, header, path)
        _check_region(handle, header, path)
    finally:
        os.close(handle)
    return RpmFileLayout(header, header + size)


def package_damaged(path: Path, why: str) -> VerificationError:
    """Make the error for a package with damaged bytes."""
    return VerificationError(
        "package-damaged",
        f"{path.name}: {why}",
        place=str(path),
        hint="download it again; if that does not help, report it to the repository's maintainer",
    )


def _introduction(handle: int, offset: int, path: Path) -> tuple[int, int]:
    data = os.pread(handle, _INTRODUCTION.size, offset)
    if len(data) < _INTRODUCTION.size:
        raise package_damaged(path, "it ends in the middle of a header")
    magic, entries, stored = _INTRODUCTION.unpack(data)
    if magic != _MAGIC:
        raise package_damaged(path, "a header does not begin with the header magic")
    if entries > HEADER_ENTRIES_LIMIT or stored > HEADER_DATA_LIMIT:
        raise package_damaged(path, f"a header claims {entries} entries and {stored} bytes")
    return entries, stored


def _size(handle: int, offset: int, path: Path) -> int:
    entries, stored = _introduction(handle, offset, path)
    return _INTRODUCTION.size + entries * _ENTRY.size + stored


def _check_region(handle: int, offset: int, path: Path) -> None:
    entries, stored = _introduction(handle, offset, path)
    first = os.pread(handle, _ENTRY.size, offset + _INTRODUCTION.size)
    if entries < 1 or len(first) < _ENTRY.size:
        raise package_damaged(path, "its header is empty")
    tag, kind, where, count = _ENTRY.unpack(first)
    if (tag, kind, count) != (_REGION_TAG, _BINARY, _ENTRY.size) or where != stored - _ENTRY.size:
        raise package_damaged(path, "its header has entries that no signature covers")
    data = offset + _INTRODUCTION.size + entries * _ENTRY.size
    trailer = os.pread(handle, _ENTRY.size, data + where)
    if len(trailer) < _ENTRY.size:
        raise package_damaged(path, "it ends in the middle of its header")
    tag, kind, back, count = _ENTRY.unpack(trailer)
    if (tag, kind, count) != (_REGION_TAG, _BINARY, _ENTRY.size) or -back != entries * _ENTRY.size:
        raise package_damaged(path, "its header has entries that no signature covers")
