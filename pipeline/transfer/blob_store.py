"""Interface of the store into which downloads are put; `pipeline.store.Store` implements it.

The two packages are on the same floor, so neither imports the other.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pipeline.digest import Digest


class BlobSink(Protocol):
    """Writer of one blob, which is put under its digest at the end."""

    size: int

    @property
    def digest(self) -> Digest: ...

    def write(self, data: bytes | memoryview, /) -> int: ...


class BlobStore(Protocol):
    """The part of a store that downloads use: blobs by digest, a folder for partial ones, locks."""

    @property
    def metadata(self) -> Path:
        """A folder on the same file system, for partial downloads."""

    def blob(self, digest: Digest) -> Path:
        """Return the path of a blob, which need not exist."""

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is here."""

    def writer(self, expected: Digest | None = None) -> AbstractContextManager[BlobSink]:
        """Return the writer of a new blob, which is kept if the block raises nothing."""

    def note_whole(self, digest: Digest, status: os.stat_result | None = None) -> None:
        """Record that the blob's file (of this status) was hashed while it was written."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock within the block, against other processes and threads."""
