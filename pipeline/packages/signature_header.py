"""Read each signature of a package, and write a package header with one signature alone.

rpm before 6 reads at most one signature of each kind, and ignores the list that rpm 6 writes (`RPMSIGTAG_OPENPGP`,
rpm's docs/manual/tags.md and format_v6.md). So the signature header is parsed here, and rpm verifies each signature
over the header in a package made for it: the lead, a signature header with that signature alone, and the header. A
signature header is itself unsigned, so nothing but the signatures is used of it.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.openpgp_packets import RSA, MalformedPacket, PacketKind, Signature, read_packets, read_signature
from pipeline.packages.rpm_file_layout import RpmFileLayout, package_damaged

_DSA_HEADER, _RSA_HEADER, _OPENPGP = 267, 268, 278
_PGP, _GPG = 1002, 1005
_REGION, _BINARY, _STRINGS = 62, 7, 8
_LEAD = 96
_INTRODUCTION = struct.Struct(">8sII")
_ENTRY = struct.Struct(">iIiI")
_MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"

SIGNATURE_HEADER_LIMIT = 64 << 20
"""Maximum bytes of a signature header, as in rpm. Most of it is space reserved for signatures."""

SIGNATURES_MOST = 16
"""Maximum signatures of one package, equal ones counted too: rpm 6 has no limit; two or three are common."""

SIGNATURE_BYTES_MOST = 64 << 10
"""Maximum bytes of one signature: the largest post-quantum ones have 50 KB."""

_TEXT_MOST = 2 * SIGNATURE_BYTES_MOST
"""Maximum bytes of one signature in base64, which adds a third, and line ends."""


@dataclass(frozen=True, slots=True)
class PackageSignature:
    """One signature of a package.

    `packet` is its bytes. `whole`: it is over header and payload, not over the header alone. `listed`: it comes from
    the list of rpm 6. `tag` is the tag by which rpm before 6 reads such a signature. `said` is its fields, None if the
    packet cannot be parsed.
    """

    packet: bytes
    whole: bool
    listed: bool
    tag: int
    said: Signature | None


def read_signatures(path: Path, layout: RpmFileLayout) -> tuple[PackageSignature, ...]:
    """Read all distinct signatures of a package, in the order of the signature header.

    Raises VerificationError `package-damaged`.
    """
    with path.open("rb") as file:
        file.seek(_LEAD)
        if layout.header - _LEAD > SIGNATURE_HEADER_LIMIT:
            raise package_damaged(path, f"its signature header has more than {SIGNATURE_HEADER_LIMIT >> 20} MiB")
        data = file.read(layout.header - _LEAD)
    found: dict[tuple[bool, bytes], PackageSignature] = {}
    for number, (tag, packet) in enumerate(_packets(data, path), 1):
        if number > SIGNATURES_MOST:
            raise package_damaged(path, f"it has more than {SIGNATURES_MOST} signatures")
        if len(packet) > SIGNATURE_BYTES_MOST:
            raise _too_large(path)
        whole = tag in {_PGP, _GPG}
        if (whole, packet) not in found:
            found[whole, packet] = _signature(packet, whole, tag)
    return tuple(found.values())


def _too_large(path: Path) -> VerificationError:
    return package_damaged(path, f"a signature has more than {SIGNATURE_BYTES_MOST >> 10} KiB")


def _packets(data: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each signature's tag and bytes."""
    _, entries, stored = _INTRODUCTION.unpack_from(data)
    start = _INTRODUCTION.size + entries * _ENTRY.size
    store = data[start : start + stored]
    for index in range(entries):
        tag, kind, where, count = _ENTRY.unpack_from(data, _INTRODUCTION.size + index * _ENTRY.size)
        if tag in {_DSA_HEADER, _RSA_HEADER, _PGP, _GPG}:
            if kind != _BINARY or not 0 <= where <= len(store) - count:
                raise package_damaged(path, "a signature does not fit into its signature header")
            if count > SIGNATURE_BYTES_MOST:
                raise _too_large(path)
            yield tag, store[where : where + count]
        elif tag == _OPENPGP:
            if kind != _STRINGS or not 0 <= where < len(store) or not 0 < count <= SIGNATURES_MOST:
                raise package_damaged(path, "the list of its signatures does not fit into its signature header")
            yield from ((tag, _decoded(text, path)) for text in _strings(store, where, count, path))


def _strings(store: bytes, at: int, count: int, path: Path) -> Iterator[bytes]:
    for _ in range(count):
        end = store.find(b"\0", at)
        if end < 0:
            raise package_damaged(path, "the list of its signatures does not fit into its signature header")
        if end - at > _TEXT_MOST:
            raise _too_large(path)
        yield store[at:end]
        at = end + 1


def _decoded(text: bytes, path: Path) -> bytes:
    try:
        return base64.b64decode(text.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error as error:
        raise package_damaged(path, f"a signature in its list is no base64: {error}") from error


def _signature(packet: bytes, whole: bool, tag: int) -> PackageSignature:
    try:
        (one,) = read_packets(packet)
        said = read_signature(one.body) if one.kind == PacketKind.SIGNATURE else None
    except (MalformedPacket, ValueError):
        said = None
    listed = tag == _OPENPGP
    if listed:
        tag = _RSA_HEADER if said is not None and said.algorithm in RSA else _DSA_HEADER
    return PackageSignature(packet, whole, listed, tag, said)


def with_one_signature(path: Path, layout: RpmFileLayout, signature: PackageSignature) -> bytes:
    """Return the package's bytes without its payload, with only this signature over the header."""
    entries = 2
    trailer = _ENTRY.pack(_REGION, _BINARY, -entries * _ENTRY.size, _ENTRY.size)
    store = signature.packet + trailer
    head = (
        _INTRODUCTION.pack(_MAGIC, entries, len(store))
        + _ENTRY.pack(_REGION, _BINARY, len(signature.packet), _ENTRY.size)
        + _ENTRY.pack(signature.tag, _BINARY, 0, len(signature.packet))
        + store
    )
    with path.open("rb") as file:
        lead = file.read(_LEAD)
        file.seek(layout.header)
        return lead + head + bytes(-len(head) % 8) + file.read(layout.payload - layout.header)
