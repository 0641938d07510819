"""Marks in a layer's tar, by which this process knows bytes again that it has hashed itself.

The tar is hashed once, from the tree, with sha256: its diff_id. Who reads the blob back compares instead by a keyed
authenticator, GMAC (NIST SP 800-38D), which takes a twentieth of the time. Its key is drawn at random for each layer
and never leaves the process, so nobody can choose bytes that collide: whatever two different segments are, up to
256 GiB each, they have the same tag with a probability of 2^-94 (docs/decisions/0069-read-back-by-a-keyed-tag.md).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pipeline.compression import Piece
from pipeline.lazy_dataclasses import dataclass

_KEY_SIZE = 16
"""Bytes of an AES-128 key."""
_NONCE_SIZE = 12
"""Bytes of a nonce that is used as it is (SP 800-38D, 8.2)."""


class Authenticator(Protocol):
    """The authenticator of one segment, whose bytes come in any pieces."""

    @property
    def update(self) -> Callable[[Piece | memoryview], None]:
        """Take the next bytes."""
        ...

    def tag(self) -> bytes:
        """Return the tag of all bytes, and of their number; nothing follows."""
        ...


class _Gmac:
    __slots__ = ("_encryptor", "update")

    def __init__(self, key: bytes, nonce: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        self.update: Callable[[Piece | memoryview], None] = self._encryptor.authenticate_additional_data

    def tag(self) -> bytes:
        self._encryptor.finalize()
        return self._encryptor.tag


class _Sha256:
    __slots__ = ("_hash", "update")

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._hash = hashlib.sha256(key + nonce)
        self.update: Callable[[Piece | memoryview], None] = self._hash.update

    def tag(self) -> bytes:
        return self._hash.digest()


class TarKey:
    """A key drawn at random, for the tags of one layer's segments."""

    def __init__(self) -> None:
        self._key = os.urandom(_KEY_SIZE)
        self._kind: type[_Gmac | _Sha256] | None = None

    def authenticator(self, at: int) -> Authenticator:
        """Begin the authenticator of the segment number `at`."""
        nonce = at.to_bytes(_NONCE_SIZE, "big")
        self._kind = self._kind or _available()
        return self._kind(self._key, nonce)


def _available() -> type[_Gmac | _Sha256]:
    """Return GMAC, or sha256 where the library has no AES-GCM or cannot be loaded."""
    try:
        _Gmac(bytes(_KEY_SIZE), bytes(_NONCE_SIZE)).tag()
    except Exception:
        return _Sha256
    return _Gmac


@dataclass(frozen=True, slots=True)
class TarMark:
    """The end of a segment in a tar, of which `size` bytes come up to there.

    `tag` is that of the bytes since the mark before.
    """

    size: int
    tag: bytes


class TarMarker:
    """The marks of a tar, made as its bytes come. `size` is its bytes so far."""

    def __init__(self, key: TarKey) -> None:
        self._key = key
        self._number = 0
        self._running: Authenticator | None = None
        self.size = 0

    def update(self, data: Piece | memoryview) -> None:
        """Take the next bytes."""
        running = self._running
        if running is None:
            running = self._running = self._key.authenticator(self._number)
        running.update(data)
        self.size += len(data)

    def mark(self) -> TarMark:
        """End a segment here, and begin the next."""
        self.update(b"")
        assert self._running is not None
        made = TarMark(self.size, self._running.tag())
        self._running, self._number = None, self._number + 1
        return made


class MarkedTar:
    """A tar that is compared with its marks as its bytes come.

    `reached` is the number of marks so far.
    """

    def __init__(self, key: TarKey, marks: Sequence[TarMark]) -> None:
        self._marks = marks
        self.reached = 0
        self._marker = TarMarker(key)

    def update(self, piece: Piece | memoryview) -> Iterator[tuple[int, bool]]:
        """Take the next bytes; yield the number of each mark that they reach.

        With it comes whether the segment that ends there is the same.
        """
        rest = memoryview(piece)
        while self.reached < len(self._marks) and self.size + len(rest) >= (mark := self._marks[self.reached]).size:
            part, rest = rest[: mark.size - self.size], rest[mark.size - self.size :]
            self._marker.update(part)
            yield self.reached, self._marker.mark() == mark
            self.reached += 1
        self._marker.update(rest)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._marker.size

    @property
    def ended(self) -> bool:
        """True once all marks were reached, and nothing came after the last."""
        return self.reached == len(self._marks) and self.size == (self._marks[-1].size if self._marks else 0)
