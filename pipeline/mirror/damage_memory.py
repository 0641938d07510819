"""Record in the store of the blobs that a registry was found to return corrupt.

A registry says that it has a blob, and does not read it. Who found that it returns other bytes does not take its word
for that blob again until it was read intact.
"""

from __future__ import annotations

import secrets

from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.store import Store, recall_seen, remember_seen


@dataclass(frozen=True, slots=True)
class DamageMemory:
    """Record in the store of the corrupt blobs of the mirror at `url`."""

    store: Store
    url: str

    def has(self, digest: Digest) -> bool:
        """Return whether the blob was found corrupt, and not intact since."""
        return recall_seen(self.store, self._name(digest)) is True

    def note(self, digest: Digest) -> None:
        """Record that the blob was found corrupt."""
        remember_seen(self.store, self._last(), secrets.token_hex(8))
        remember_seen(self.store, self._name(digest), value=True)

    def clear(self, digest: Digest) -> None:
        """Record that the blob was read intact."""
        if self.has(digest):
            remember_seen(self.store, self._name(digest), value=False)

    def latest(self) -> str:
        """Return a text that changes each time that a blob is found corrupt; "" before.

        It is no time of a clock, which may be set back meanwhile.
        """
        return str(recall_seen(self.store, self._last()) or "")

    def _name(self, digest: Digest) -> Digest:
        return identity("blob-damaged", 1, mirror=self.url, digest=digest)

    def _last(self) -> Digest:
        return identity("damage-found", 1, mirror=self.url)
