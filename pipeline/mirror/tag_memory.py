"""Record in the store of the highest signed statement number seen on each tag of a mirror."""

from __future__ import annotations

from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class TagMemory:
    """Record in the store of the highest signed statement number seen on each tag.

    A mirror that later shows a lower one was rolled back.
    """

    store: Store

    def seen(self, url: str, tag: str) -> int:
        """Return the highest number seen on a tag of the repository at `url`; 0 if none was."""
        known = self.store.recall(_memory(url, tag))
        return known if isinstance(known, int) and not isinstance(known, bool) else 0

    def see(self, url: str, tag: str, number: int) -> None:
        """Record a number, unless a higher one is recorded."""
        if number > self.seen(url, tag):
            self.store.remember(_memory(url, tag), number)


def _memory(url: str, tag: str) -> Digest:
    return identity("tag-number", 1, repository=url, tag=tag)
