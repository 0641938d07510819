"""Record in the store of the highest signed statement number seen on each tag of a mirror."""

from __future__ import annotations

from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.store import Store, recall_seen, remember_seen


@dataclass(frozen=True, slots=True)
class TagMemory:
    """Record in the store of the highest number seen of each key on each tag.

    A mirror that later shows a lower one was rolled back. Keys are told apart by fingerprint: who has stolen one must
    not be able to have what another key signs refused.
    """

    store: Store

    def seen(self, url: str, tag: str, *keys: Digest) -> int:
        """Return the highest number seen of any of `keys` on a tag; 0 if none was.

        `url` is the repository's.
        """
        return max((self._seen(url, tag, key) for key in keys), default=0)

    def see(self, url: str, tag: str, key: Digest, number: int) -> None:
        """Record a number that `key` signed, unless a higher one is recorded."""
        if number > self._seen(url, tag, key):
            remember_seen(self.store, _memory(url, tag, key), number)

    def _seen(self, url: str, tag: str, key: Digest) -> int:
        known = recall_seen(self.store, _memory(url, tag, key))
        if known is None:
            known = recall_seen(self.store, _memory_of_all_keys(url, tag))
        return known if isinstance(known, int) and not isinstance(known, bool) else 0


def _memory(url: str, tag: str, key: Digest) -> Digest:
    return identity("tag-number", 2, repository=url, tag=tag, key=str(key))


def _memory_of_all_keys(url: str, tag: str) -> Digest:
    """Name the record of earlier versions, which did not tell keys apart."""
    return identity("tag-number", 1, repository=url, tag=tag)
