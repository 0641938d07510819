"""Blobs that this store has compressed itself.

They may be decompressed by the faster library (`gzip_members`). What is recorded is their digests, under the store's
seal; who reads such a blob compares its digest, as of any other.
"""

from __future__ import annotations

from pipeline.digest import Digest, identity
from pipeline.store import Store

FORMAT = 1
"""To be raised when what was recorded before is no longer to be read by the faster library."""


def record_own_blob(digest: Digest, store: Store) -> None:
    """Record that a blob was compressed here; if that is lost, the slower library reads it."""
    store.remember(_name(digest), value=True, sync=False)


def is_own_blob(digest: Digest, store: Store) -> bool:
    """Return whether the blob is known to have been compressed here."""
    return store.recall(_name(digest)) is True


def _name(digest: Digest) -> Digest:
    return identity("own-blob", FORMAT, digest=digest)
