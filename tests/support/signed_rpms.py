"""Packages put together by hand: any signatures over any header and payload, as any rpm since 4 makes them.

rpm makes neither packages without a payload digest any more (before 4.14 it did) nor lists of signatures (since 6 it
does), so a package of today's rpm is taken apart and its parts are signed and put together anew.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.packages.rpm_file_layout import read_rpm_layout

DSA_HEADER, RSA_HEADER, SHA1_HEADER, SHA256_HEADER, OPENPGP = 267, 268, 269, 273, 278
SIZE, PGP, MD5, GPG = 1000, 1002, 1004, 1005
PAYLOAD_TAGS = frozenset({5092, 5093, 5097})
"""Digests of the payload in the header: compressed, its algorithm, not compressed."""

_LEAD = 96
_INTRODUCTION = struct.Struct(">8sII")
_ENTRY = struct.Struct(">iIiI")
_MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"
_REGION_OF_SIGNATURES = 62
_INT32, _STRING, _BINARY, _STRINGS, _TRANSLATED = 4, 6, 7, 8, 9
_WIDTHS = {3: 2, _INT32: 4, 5: 8}


@dataclass(frozen=True, slots=True)
class Parts:
    """Lead, header and payload of a package."""

    lead: bytes
    header: bytes
    payload: bytes

    @classmethod
    def of(cls, path: Path) -> Parts:
        """Take a package apart."""
        layout, data = read_rpm_layout(path), path.read_bytes()
        return cls(data[:_LEAD], data[layout.header : layout.payload], data[layout.payload :])

    def without_payload_digest(self) -> Parts:
        """The package as rpm before 4.14 would have made it: its header does not name its payload."""
        magic, count, _ = _INTRODUCTION.unpack_from(self.header)
        start = _INTRODUCTION.size + count * _ENTRY.size
        entries = [_ENTRY.unpack_from(self.header, _INTRODUCTION.size + _ENTRY.size * at) for at in range(count)]
        region, *others = entries
        kept = sorted((entry for entry in others if entry[0] not in PAYLOAD_TAGS), key=lambda entry: entry[2])
        assert len(kept) < len(others)
        store, moved = b"", []
        for tag, kind, offset, number in kept:
            store += bytes(-len(store) % _WIDTHS.get(kind, 1))
            moved.append((tag, kind, len(store), number))
            store += _value(self.header[start + offset :], kind, number)
        moved = [(*region[:2], len(store), region[3]), *sorted(moved)]
        store += _ENTRY.pack(*region[:2], -len(moved) * _ENTRY.size, _ENTRY.size)
        index = b"".join(_ENTRY.pack(*entry) for entry in moved)
        return replace(self, header=_INTRODUCTION.pack(magic, len(moved), len(store)) + index + store)

    def with_other_header(self) -> Parts:
        """The package with a letter of its summary changed."""
        assert self.header.count(b"made for a test") >= 1
        return replace(self, header=self.header.replace(b"made for a test", b"made for a pest"))

    def with_other_payload(self) -> Parts:
        """The package with a bit of its payload changed."""
        return replace(self, payload=self.payload[:-1] + bytes([self.payload[-1] ^ 1]))

    def signed(self, signatures: Mapping[int, bytes], listed: Sequence[bytes] = ()) -> bytes:
        """The whole file, its digests honest. `signatures` are by their tag, `listed` are those of rpm 6's list."""
        return self.lead + self._signature_header(signatures, listed) + self.header + self.payload

    def _signature_header(self, signatures: Mapping[int, bytes], listed: Sequence[bytes]) -> bytes:
        whole = self.header + self.payload
        values: dict[int, tuple[int, int, bytes]] = {
            SHA1_HEADER: (_STRING, 1, hashlib.sha1(self.header).hexdigest().encode() + b"\0"),
            SHA256_HEADER: (_STRING, 1, hashlib.sha256(self.header).hexdigest().encode() + b"\0"),
            MD5: (_BINARY, 16, hashlib.md5(whole).digest()),
            SIZE: (_INT32, 1, struct.pack(">I", len(whole))),
        }
        values |= {tag: (_BINARY, len(packet), packet) for tag, packet in signatures.items()}
        if listed:
            texts = [base64.b64encode(packet) + b"\0" for packet in listed]
            values[OPENPGP] = (_STRINGS, len(texts), b"".join(texts))
        store, entries = b"", []
        for tag in sorted(values):
            kind, count, value = values[tag]
            store += bytes(-len(store) % 4) if kind == _INT32 else b""
            entries.append(_ENTRY.pack(tag, kind, len(store), count))
            store += value
        region = _ENTRY.pack(_REGION_OF_SIGNATURES, _BINARY, len(store), _ENTRY.size)
        total = len(entries) + 1
        store += _ENTRY.pack(_REGION_OF_SIGNATURES, _BINARY, -total * _ENTRY.size, _ENTRY.size)
        data = _INTRODUCTION.pack(_MAGIC, total, len(store)) + region + b"".join(entries) + store
        return data + bytes(-len(data) % 8)


def _value(data: bytes, kind: int, number: int) -> bytes:
    """The bytes of an entry whose data begins there."""
    if kind in {_STRING, _STRINGS, _TRANSLATED}:
        return b"".join(text + b"\0" for text in data.split(b"\0", number)[:number])
    return data[: number * _WIDTHS.get(kind, 1)]
