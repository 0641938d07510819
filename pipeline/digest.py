"""SHA-256 digest types, file hashing, a hashing writer, canonical JSON, result identities.

`Digest` names stored (often compressed) bytes; `DiffId` names a layer's tar bytes. They have the same
form (OCI image-spec 1.1, descriptor.md) and are never mixed: mypy refuses one for the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from pipeline.beneath import open_file
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass

CHUNK = 1 << 20
"""Bytes per read: large enough to make Python's overhead per call small, small enough to stay in cache."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class _Sha256:
    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise VerificationError("digest-malformed", f"'{self.hex[:80]}' is not a sha256 in lower-case hex")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`sha256:HEX` → value. Raises VerificationError for another algorithm or form."""
        algorithm, _, value = text.partition(":")
        if algorithm != "sha256":
            raise VerificationError(
                "digest-malformed",
                f"'{text[:80]}' is not a sha256 digest",
                hint="write it as sha256:<64 hex digits>",
            )
        return cls(value)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """First 12 hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class Digest(_Sha256):
    """SHA-256 digest of stored bytes."""

    __str__ = _Sha256.__str__


@dataclass(frozen=True, slots=True, order=True)
class DiffId(_Sha256):
    """SHA-256 digest of a layer's uncompressed tar bytes."""

    __str__ = _Sha256.__str__


def digest_json(value: object) -> Digest:
    """Parse a digest from a JSON value. Raises TypeError, VerificationError."""
    if not isinstance(value, str):
        raise TypeError("a digest is a string")
    return Digest.parse(value)


class Sink(Protocol):
    """Protocol of objects that bytes can be written to."""

    def write(self, data: bytes, /) -> object: ...


class HashingWriter:
    """Writer that passes bytes to `target` (or drops them) and computes digest and count."""

    def __init__(self, target: Sink | None = None) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write all of `data`; returns its length."""
        self._hash.update(data)
        self.size += len(data)
        if self._target is not None:
            self._target.write(data if isinstance(data, bytes) else bytes(data))
        return len(data)

    @property
    def digest(self) -> Digest:
        """Digest of what was written so far."""
        return Digest(self._hash.hexdigest())

    @property
    def diff_id(self) -> DiffId:
        """The same as a `DiffId`, for a writer of tar bytes."""
        return DiffId(self._hash.hexdigest())


def chunks(file: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """Return the rest of `file` in pieces of at most `size` bytes."""
    while piece := file.read(size):
        yield piece


def digest_file(path: Path) -> Digest:
    """Return the digest of a regular file's content.

    Raises OSError, also for a FIFO or a device, which could be read for ever.
    """
    with open_file(path) as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def canonical_json(value: object) -> bytes:
    """Write JSON with sorted keys, no white space, UTF-8: equal values give equal bytes.

    Floats are refused, because their text depends on the writer.
    """
    return _canonical_text(value).encode()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _canonical_text(value: object) -> str:
    _refuse_floats(value)
    return _CANONICAL.encode(value)


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"canonical JSON holds no floats, got {value!r}")
    if isinstance(value, dict):
        for inner in value.values():
            _refuse_floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_floats(inner)


def identity(step: str, version: int, **inputs: object) -> Digest:
    """Return the digest that identifies a step's result.

    It is over the step's name, its format version and its declared inputs.

    `inputs` are JSON values, or values whose `str` is canonical (`Digest`, `DiffId`, `Nevra` …).
    """
    text = _CANONICAL.encode({"step": step, "version": version, "inputs": _plain(inputs)})
    return Digest.of(text.encode(errors="surrogateescape"))  # A path need not be UTF-8.


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(str(inner) for inner in value)
    if isinstance(value, float):
        raise TypeError(f"an identity holds no floats, got {value!r}")
    return str(value)
