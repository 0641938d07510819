"""Parser of OpenPGP armor, packets, public keys and signatures (RFC 9580).

Version 3 of keys and signatures is RFC 4880's.
No signature is verified here: rpm and GnuPG do that. This module splits certificates, and reads the version, algorithm
and issuer that a signature names, also of keys and signatures that rpm and GnuPG cannot read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from enum import IntEnum

from pipeline.lazy_dataclasses import dataclass

ARMOR_BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
ARMOR_END = b"-----END PGP PUBLIC KEY BLOCK-----"

PACKETS_MOST = 20_000
"""Maximum packets of one key file: a key with many user ids and certifications has some hundred."""

MD5, SHA1, RIPEMD160 = 1, 2, 3
"""Numbers of hash algorithms (RFC 9580, 9.5)."""

_CRC_INITIAL = 0xB704CE
_CRC_POLYNOMIAL = 0x1864CFB
_ARMOR_LINE = 64
_SECONDS_AND_ALGORITHM = 6
_REVOCATIONS = frozenset({0x20, 0x28, 0x30})
"""Types of signatures that revoke a key, a subkey or a certification (RFC 9580, 5.2.1)."""

RSA = frozenset({1, 3})
ALGORITHMS = {
    **{1: "RSA", 3: "RSA", 17: "DSA", 19: "ECDSA", 22: "EdDSA", 27: "Ed25519", 28: "Ed448"},
    **{30: "ML-DSA-65+Ed25519", 31: "ML-DSA-87+Ed448", 32: "SLH-DSA-SHAKE-128s", 33: "SLH-DSA-SHAKE-128f"},
    34: "SLH-DSA-SHAKE-256s",
}
"""Names of the signature algorithms (RFC 9580, 9.1, and the post-quantum ones of draft-ietf-openpgp-pqc)."""
HASHES = {1: "MD5", 2: "SHA1", 3: "RIPEMD160", 8: "SHA256", 9: "SHA384", 10: "SHA512", 11: "SHA224", 12: "SHA3-256"}


class PacketKind(IntEnum):
    """The packet types (RFC 9580, 5) that this module reads."""

    SIGNATURE = 2
    PUBLIC_KEY = 6
    PUBLIC_SUBKEY = 14


KEY_PACKETS = frozenset({PacketKind.PUBLIC_KEY, PacketKind.PUBLIC_SUBKEY})
CERTIFICATE_PACKETS = frozenset({PacketKind.SIGNATURE, *KEY_PACKETS, 13, 17})
"""Packet types that a certificate consists of (RFC 9580, 10.1): these, and user IDs and attributes."""
KEYRING_PACKETS = frozenset({10, 12, 21})
"""Packet types that occur in keyrings and are no part of a certificate: marker, trust, padding."""


class MalformedPacket(ValueError):
    """The error for bytes that are not valid OpenPGP packets."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its type, its content, and its bytes with the packet header."""

    kind: int
    body: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class OpenPgpKey:
    """The key in a public-key or subkey packet.

    `fingerprint` is upper-case hex; `created` is in seconds since the epoch. For a version 3 key, `fingerprint` is
    its key id, the low 64 bits of its modulus.
    """

    version: int
    algorithm: int
    created: int
    fingerprint: str

    @property
    def key_id(self) -> str:
        """The key id, as signatures name it: 16 hexadecimal digits in upper case."""
        return self.fingerprint[:16] if self.version >= 6 else self.fingerprint[-16:]


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of a signature packet, which are not verified.

    `issuer` is the key id that it names (16 hexadecimal digits, empty if none); `created` is in seconds since the
    epoch, 0 if absent.
    """

    version: int
    kind: int
    algorithm: int
    hash: int
    created: int
    issuer: str

    @property
    def revokes(self) -> bool:
        """Return whether this is the revocation of a key or subkey."""
        return self.kind in _REVOCATIONS

    def __str__(self) -> str:
        algorithm = ALGORITHMS.get(self.algorithm, f"algorithm {self.algorithm}")
        return f"OpenPGP v{self.version} {algorithm}/{HASHES.get(self.hash, f'hash {self.hash}')}"


def read_packets(data: bytes) -> Iterator[Packet]:
    """Yield the packets of `data`, which must hold nothing else. Raises MalformedPacket."""
    at = 0
    for _ in range(PACKETS_MOST):
        if at >= len(data):
            return
        kind, start, size = _packet_header(data, at)
        end = start + size
        if end > len(data):
            raise MalformedPacket("it ends in the middle of a packet")
        yield Packet(kind, data[start:end], data[at:end])
        at = end
    raise MalformedPacket(f"it has more than {PACKETS_MOST} packets")


def _packet_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return a packet's type, and the offset and size of its content (RFC 9580, 4.2)."""
    first = data[at]
    if not first & 0x80:
        raise MalformedPacket("it is no OpenPGP packet")
    if not first & 0x40:
        width = 1 << (first & 3)
        if width > 4:
            raise MalformedPacket("a packet has no length")
        return (first >> 2) & 0xF, at + 1 + width, _number(data, at + 1, width)
    size, start = _length(data, at + 1, partial=False)
    return first & 0x3F, start, size


def _length(data: bytes, at: int, *, partial: bool) -> tuple[int, int]:
    """Return a length of the new format, or of a subpacket, and the offset after it."""
    first = _number(data, at, 1)
    if first < 192:
        return first, at + 1
    if first == 255:
        return _number(data, at + 1, 4), at + 5
    if first >= 224 and not partial:
        raise MalformedPacket("a packet comes in parts, which keys and signatures must not")
    return ((first - 192) << 8) + _number(data, at + 1, 1) + 192, at + 2


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise MalformedPacket("it ends in the middle of a packet")
    return int.from_bytes(data[at : at + width], "big")


def split_certificates(data: bytes) -> tuple[tuple[Packet, ...], ...]:
    """Split `data` into certificates, each beginning with a public-key packet.

    Raises MalformedPacket, also if `data` begins with another packet.
    """
    found: list[list[Packet]] = []
    for packet in read_packets(data):
        if packet.kind == PacketKind.PUBLIC_KEY:
            found.append([packet])
        elif found:
            found[-1].append(packet)
        else:
            raise MalformedPacket(f"it begins with a packet of type {packet.kind}, not with a public key")
    return tuple(tuple(packets) for packets in found)


def certificate_keys(packets: Sequence[Packet]) -> Iterator[tuple[int, OpenPgpKey]]:
    """Yield the primary key and the subkeys that can be read, each with the index of its packet."""
    for index, packet in enumerate(packets):
        if packet.kind in KEY_PACKETS:
            with contextlib.suppress(MalformedPacket):
                yield index, read_public_key(packet.body)


def prune_certificate(armored: bytes, gone: Collection[str]) -> bytes:
    """Return an armored certificate without the keys of the fingerprints `gone`, armored anew.

    Their signatures are removed with them, and packets of types that are no part of a certificate: readers differ in
    what they make of these. The result is empty if the primary key is removed. Nothing of the given armor is in it: rpm
    reads armor by other rules than `dearmor`. Raises MalformedPacket.
    """
    (packets,) = split_certificates(dearmor(armored))
    kept = {index for index, key in certificate_keys(packets) if key.fingerprint not in gone}
    if 0 not in kept:
        return b""
    left = []
    keep = True
    for index, packet in enumerate(packets):
        keep = index in kept if packet.kind in KEY_PACKETS else keep
        if keep and packet.kind in CERTIFICATE_PACKETS:
            left.append(packet)
    return armor(left)


def read_public_key(body: bytes) -> OpenPgpKey:
    """Read a public-key or subkey packet's content (RFC 9580, 5.5.2 and 5.5.4).

    Raises MalformedPacket.
    """
    version, created = _number(body, 0, 1), _number(body, 1, 4)
    if version in {2, 3}:
        bits = _number(body, 8, 2)
        modulus = body[10 : 10 + (bits + 7) // 8]
        return OpenPgpKey(version, _number(body, 7, 1), created, modulus[-8:].hex().upper())
    algorithm = _number(body, _SECONDS_AND_ALGORITHM - 1, 1)
    if version == 4:
        hashed = b"\x99" + len(body).to_bytes(2, "big") + body if len(body) < 1 << 16 else b""
        fingerprint = hashlib.sha1(hashed, usedforsecurity=False).hexdigest()
    elif version in {5, 6}:
        hashed = (b"\x9a" if version == 5 else b"\x9b") + len(body).to_bytes(4, "big") + body
        fingerprint = hashlib.sha256(hashed).hexdigest()
    else:
        raise MalformedPacket(f"a public key has version {version}")
    return OpenPgpKey(version, algorithm, created, fingerprint.upper())


def read_signature(body: bytes) -> Signature:
    """Read a signature packet's content (RFC 9580, 5.2; version 3: RFC 4880, 5.2.2).

    Raises MalformedPacket.
    """
    version = _number(body, 0, 1)
    if version in {2, 3}:
        _number(body, 16, 1)
        return Signature(version, body[2], body[15], body[16], _number(body, 3, 4), body[7:15].hex().upper())
    if version not in {4, 5, 6}:
        raise MalformedPacket(f"a signature has version {version}")
    kind, algorithm, hash_algorithm = (_number(body, at, 1) for at in (1, 2, 3))
    width = 4 if version == 6 else 2
    at, created, issuer = 4, 0, ""
    for _ in ("hashed", "not hashed"):
        size = _number(body, at, width)
        area = body[at + width : at + width + size]
        if len(area) < size:
            raise MalformedPacket("a signature ends in the middle of its subpackets")
        at += width + size
        for number, content in _subpackets(area):
            if number == 2 and len(content) == 4 and not created:
                created = int.from_bytes(content, "big")
            elif number == 16 and len(content) == 8:
                issuer = issuer or content.hex().upper()
            elif number == 33 and len(content) >= 21:
                fingerprint = content[1:].hex().upper()
                issuer = issuer or (fingerprint[:16] if content[0] >= 6 else fingerprint[-16:])
    return Signature(version, kind, algorithm, hash_algorithm, created, issuer)


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        size, start = _length(area, at, partial=True)
        if not size or start + size > len(area):
            raise MalformedPacket("a subpacket of a signature does not fit")
        yield area[start] & 0x7F, area[start + 1 : start + size]
        at = start + size


def armor_blocks(data: bytes) -> Iterator[bytes]:
    """Yield the armored blocks of public keys, with CRLF line ends turned into LF.

    A BEGIN line inside a block starts a new one, so one pass over the data suffices.
    """
    block: list[bytes] = []
    for line in data.split(b"\n"):
        bare = line.rstrip(b" \t\r")
        if bare == ARMOR_BEGIN:
            block = [bare]
        elif block and bare == ARMOR_END:
            yield b"\n".join((*block, bare)) + b"\n"
            block = []
        elif block:
            block.append(line.removesuffix(b"\r"))


def dearmor(armored: bytes) -> bytes:
    """Return the packets' bytes in an armored block (RFC 9580, 6.2). Raises MalformedPacket.

    A carriage return that ends no line is refused: some readers of armor take it for a line end, others do not.
    """
    text = armored.replace(b"\r\n", b"\n").strip()
    if b"\r" in text:
        raise MalformedPacket("invalid armor: a carriage return stands alone")
    lines = [line.strip() for line in text.split(b"\n")]
    if b"" not in lines:
        raise MalformedPacket("invalid armor: the empty line between its head and its content is missing")
    try:
        body = lines[lines.index(b"") + 1 : -1]
        return base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedPacket(f"invalid armor: {error}") from error


def armor(packets: Sequence[Packet]) -> bytes:
    """Return packets of public keys as one armored block, with the checksum that rpm requires."""
    data = b"".join(packet.raw for packet in packets)
    text = base64.b64encode(data)
    lines = [text[at : at + _ARMOR_LINE] for at in range(0, len(text), _ARMOR_LINE)]
    check = b"=" + base64.b64encode(_crc24(data).to_bytes(3, "big"))
    return b"\n".join((ARMOR_BEGIN, b"", *lines, check, ARMOR_END, b""))


def _crc24(data: bytes) -> int:
    """Return the checksum of armor (RFC 9580, 6.1.1)."""
    crc = _CRC_INITIAL
    for byte in data:
        crc = ((crc << 8) & 0xFFFFFF) ^ _CRC_TABLE[(crc >> 16) ^ byte]
    return crc


def _crc_row(byte: int) -> int:
    crc = byte << 16
    for _ in range(8):
        crc <<= 1
        if crc & 0x1000000:
            crc ^= _CRC_POLYNOMIAL
    return crc


_CRC_TABLE = tuple(_crc_row(byte) for byte in range(256))
