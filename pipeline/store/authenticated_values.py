"""HMAC-authenticated framing of small values that the store keeps in files.

    relbuild 1 KIND KEY SEAL\\n     KEY: identifies the key (16 hex digits); SEAL: HMAC-SHA256 (64 hex digits)
    the value's bytes

Not encrypted. The seal shows whether this store wrote a value, for this subject, and that it is undamaged: it covers
kind, subject and value, so that a value in another file is not accepted.
"""

from __future__ import annotations

import errno
import hmac
import os
import stat
from enum import Enum, auto
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.store.seal_key import derive_key

FORMAT = 1
"""Format of the framing. Raise it when that changes; values of other formats are cache misses."""

VALUE_LIMIT = 256 << 20
"""Bytes of a value: a nightly run of ten thousand products needs about a quarter of that."""

_HEAD_LIMIT = 256
"""Bytes of the first line, which has about a hundred."""


class SealFault(Enum):
    """Reasons why a sealed value is not accepted."""

    FOREIGN = auto()
    """It is sealed with another key, or by a relbuild from before values were sealed."""
    DAMAGED = auto()
    """It names this key and its seal does not match, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """A key that seals and unseals values of one kind. `name` identifies it in the framing."""

    kind: str
    key: bytes
    name: str

    @classmethod
    def of(cls, key: bytes, kind: str) -> Sealer:
        """Derive the sealer of one kind of value from the store's key."""
        return cls(kind, derive_key(key, f"envelope {kind}"), derive_key(key, "name").hex()[:16])

    def seal(self, subject: str, value: bytes) -> bytes:
        """Return `value` framed with a seal over `subject` and itself."""
        return f"relbuild {FORMAT} {self.kind} {self.name} {self._seal(subject, value)}\n".encode() + value

    def unseal(self, subject: str, framed: bytes) -> bytes | SealFault:
        """Return the value in `framed` if its seal matches `subject`, or why it is not accepted."""
        head, end, value = framed.partition(b"\n")
        words = head.decode("ascii", errors="replace").split(" ")
        if len(head) > _HEAD_LIMIT or not end or len(words) != 5 or words[0] != "relbuild":
            # Before values were sealed they were plain JSON.
            return (
                SealFault.FOREIGN
                if framed[:1] in _JSON_FIRST_BYTES and framed[-1:] in _JSON_LAST_BYTES
                else SealFault.DAMAGED
            )
        if words[1:4] != [str(FORMAT), self.kind, self.name]:
            return SealFault.FOREIGN
        if not hmac.compare_digest(self._seal(subject, value).encode(), words[4].encode(errors="replace")):
            return SealFault.DAMAGED
        return value

    def _seal(self, subject: str, value: bytes) -> str:
        return hmac.digest(self.key, f"{subject}\n".encode() + value, "sha256").hex()


_JSON_FIRST_BYTES = tuple(bytes([one]) for one in b'{["0123456789tfn-')
_JSON_LAST_BYTES = tuple(bytes([one]) for one in b'}]"0123456789el')


def read_small(path: Path) -> bytes | SealFault | None:
    """Read a regular file of at most VALUE_LIMIT and a first line; None if it is missing.

    DAMAGED if it is larger, a symlink or another kind of file, or unreadable on disk.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EIO, errno.ENXIO):
            return SealFault.DAMAGED
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > VALUE_LIMIT + _HEAD_LIMIT:
            return SealFault.DAMAGED
        return _read_whole(handle, found.st_size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return SealFault.DAMAGED
    finally:
        os.close(handle)


def _read_whole(handle: int, size: int) -> bytes:
    """Read a file to its end; `size` is what it has."""
    data = os.read(handle, size + 1)
    if len(data) == size:  # A regular file gives less than is asked for at its end only (read(2)).
        return data
    with os.fdopen(handle, "rb", closefd=False) as rest:
        return data + rest.read()
