"""Sealed envelopes of small values in files.

By its seal what this store wrote is told from what anybody else wrote, or what rotted.

    relbuild 1 KIND KEY SEAL\\n     KEY: which key sealed it (16 hex digits); SEAL: HMAC-SHA256 (64 hex digits)
    the value's bytes

The seal covers kind, subject and value: a value that is moved to another name does not count there.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from pipeline.store.seal_key import derive_key

FORMAT = 1
"""Raise it when the form of envelopes changes; those of another form are misses."""

VALUE_LIMIT = 256 << 20
"""Bytes of a value: a night of ten thousand products comes to about a quarter of that."""

_HEAD_LIMIT = 256
"""Bytes of the first line: there are about a hundred."""


class EnvelopeFault(Enum):
    """The reasons for which an envelope does not count."""

    FOREIGN = auto()
    """Another key sealed it, or it is from before values were sealed."""
    DAMAGED = auto()
    """It says that this key sealed it, and that does not hold; or it cannot be read."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """A key that seals and opens envelopes of one kind."""

    kind: str
    key: bytes
    name: str

    @classmethod
    def of(cls, key: bytes, kind: str) -> Sealer:
        """For the envelopes of `kind` in a store that has `key`."""
        return cls(kind, derive_key(key, f"envelope {kind}"), derive_key(key, "name").hex()[:16])

    def close(self, subject: str, value: bytes) -> bytes:
        """The envelope of `value` about `subject`."""
        return f"relbuild {FORMAT} {self.kind} {self.name} {self._seal(subject, value)}\n".encode() + value

    def open(self, subject: str, envelope: bytes) -> bytes | EnvelopeFault:
        """The value, or why it does not count."""
        head, end, value = envelope.partition(b"\n")
        words = head.decode("ascii", errors="replace").split(" ")
        if len(head) > _HEAD_LIMIT or not end or len(words) != 5 or words[0] != "relbuild":
            # Before values were sealed they were bare JSON.
            return (
                EnvelopeFault.FOREIGN if envelope[:1] in _BARE and envelope[-1:] in _BARE_END else EnvelopeFault.DAMAGED
            )
        if words[1:4] != [str(FORMAT), self.kind, self.name]:
            return EnvelopeFault.FOREIGN
        if not hmac.compare_digest(self._seal(subject, value).encode(), words[4].encode(errors="replace")):
            return EnvelopeFault.DAMAGED
        return value

    def _seal(self, subject: str, value: bytes) -> str:
        return hmac.new(self.key, f"{subject}\n".encode() + value, hashlib.sha256).hexdigest()


_BARE = tuple(bytes([one]) for one in b'{["0123456789tfn-')
_BARE_END = tuple(bytes([one]) for one in b'}]"0123456789el')


def read_small(path: Path) -> bytes | EnvelopeFault | None:
    """Return the bytes of a regular file of at most VALUE_LIMIT and a head, or None.

    None is returned if there is no such file. No link is followed, and what the disk cannot read is damaged.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EIO, errno.ENXIO):
            return EnvelopeFault.DAMAGED
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > VALUE_LIMIT + _HEAD_LIMIT:
        os.close(handle)
        return EnvelopeFault.DAMAGED
    with os.fdopen(handle, "rb") as file:
        try:
            return file.read()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return EnvelopeFault.DAMAGED
