"""The store of downloads, as far as this room needs to know it: a protocol.

`pipeline.store.Store` is one: the two rooms stand on the same floor, so neither imports the other.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pipeline.digest import Digest


class BlobSink(Protocol):
    """Bytes being written, named by their digest in the end."""

    size: int

    @property
    def digest(self) -> Digest: ...

    def write(self, data: bytes | memoryview, /) -> int: ...


class BlobStore(Protocol):
    """Keeps bytes by digest."""

    @property
    def metadata(self) -> Path:
        """A folder on the same file system, for what is on its way."""

    def blob(self, digest: Digest) -> Path:
        """Return the path where the bytes stand, or would stand."""

    def has(self, digest: Digest) -> bool:
        """Return whether the bytes are here."""

    def writer(self, expected: Digest | None = None) -> AbstractContextManager[BlobSink]:
        """New bytes; kept when the block ends well."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock against other processes and threads."""
