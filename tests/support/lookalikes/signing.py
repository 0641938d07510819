"""RSA keys, their certificates, and signatures of OpenPGP v3 and v4 (RFC 4880, 5.2), put together by hand.

GnuPG writes no signatures of version 3 any more, which Red Hat's and CentOS's packages have.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

MADE_AT = 1_600_000_000
"""When keys and signatures are made, in seconds since the epoch."""

_BITS = 2048
_RSA, _SHA256 = 1, 8
_BINARY, _CERTIFICATION = 0x00, 0x13
_PUBLIC_KEY, _SIGNATURE, _USER_ID = 6, 2, 13
_CREATED, _ISSUER, _FLAGS, _FINGERPRINT = 2, 16, 27, 33
_CERTIFIES_AND_SIGNS = 0x03


@dataclass(frozen=True)
class SigningKey:
    """An RSA key of `owner`."""

    owner: str
    private: rsa.RSAPrivateKey

    @classmethod
    def make(cls, owner: str) -> SigningKey:
        """A new key."""
        return cls(owner, rsa.generate_private_key(public_exponent=65537, key_size=_BITS))

    @cached_property
    def body(self) -> bytes:
        """The content of the public-key packet."""
        numbers = self.private.public_key().public_numbers()
        return struct.pack(">BIB", 4, MADE_AT, _RSA) + _integer(numbers.n) + _integer(numbers.e)

    @cached_property
    def fingerprint(self) -> str:
        """Upper-case hex."""
        return hashlib.sha1(self._hashed_key).hexdigest().upper()

    @cached_property
    def certificate(self) -> bytes:
        """The packets of the certificate: key, user id, and its certification."""
        owner = self.owner.encode()
        data = self._hashed_key + b"\xb4" + struct.pack(">I", len(owner)) + owner
        flags = _subpacket(_FLAGS, bytes([_CERTIFIES_AND_SIGNS]))
        certification = self._version4(_CERTIFICATION, data, flags)
        return _packet(_PUBLIC_KEY, self.body) + _packet(_USER_ID, owner) + certification

    def sign(self, data: bytes, *, version: int = 4) -> bytes:
        """A signature packet over `data`."""
        return self._version4(_BINARY, data) if version == 4 else self._version3(data)

    @property
    def _hashed_key(self) -> bytes:
        return b"\x99" + struct.pack(">H", len(self.body)) + self.body

    @property
    def _key_id(self) -> bytes:
        return bytes.fromhex(self.fingerprint)[-8:]

    def _version3(self, data: bytes) -> bytes:
        hashed = struct.pack(">BI", _BINARY, MADE_AT)
        body = bytes([3, len(hashed)]) + hashed + self._key_id + bytes([_RSA, _SHA256])
        return _packet(_SIGNATURE, body + self._signed(data + hashed))

    def _version4(self, kind: int, data: bytes, more: bytes = b"") -> bytes:
        subpackets = _subpacket(_CREATED, struct.pack(">I", MADE_AT)) + more
        subpackets += _subpacket(_FINGERPRINT, b"\x04" + bytes.fromhex(self.fingerprint))
        hashed = bytes([4, kind, _RSA, _SHA256]) + struct.pack(">H", len(subpackets)) + subpackets
        unhashed = _subpacket(_ISSUER, self._key_id)
        trailer = b"\x04\xff" + struct.pack(">I", len(hashed))
        rest = struct.pack(">H", len(unhashed)) + unhashed + self._signed(data + hashed + trailer)
        return _packet(_SIGNATURE, hashed + rest)

    def _signed(self, data: bytes) -> bytes:
        """The start of the digest, and the signature's number."""
        signature = self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return hashlib.sha256(data).digest()[:2] + _integer(int.from_bytes(signature, "big"))


def _integer(number: int) -> bytes:
    return struct.pack(">H", number.bit_length()) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _subpacket(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data


def _packet(kind: int, body: bytes) -> bytes:
    """A packet with an old header, of two bytes of length, as GnuPG writes it."""
    return bytes([0x80 | kind << 2 | 1]) + struct.pack(">H", len(body)) + body
