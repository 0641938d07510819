"""Small documents that have no checksum of their own (repomd.xml, its signature, metalinks, keys), fetched
each time and kept for the time without a network."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digest import digest_json, identity
from pipeline.errors import EnvironmentLacking
from pipeline.store import Store
from pipeline.transfer import Network, fetch_document


class Documents:
    """Gets documents by URL. With `offline`, what was kept last is given instead; `file://` is always read."""

    def __init__(self, store: Store, *, offline: bool = False, network: Network | None = None) -> None:
        self._store = store
        self._offline = offline
        self._network = network

    def get(self, urls: Sequence[str], *, limit: int) -> bytes:
        """The document from the first of `urls` that delivers. Raises as `fetch_document`."""
        kept = identity("document", 1, urls=list(urls))
        try:
            data = fetch_document(urls, limit=limit, offline=self._offline, network=self._network)
        except EnvironmentLacking as error:
            known = self._store.recall_as(kept, digest_json) if error.code == "offline-miss" else None
            if known is None or not self._store.sound(known):
                raise
            return self._store.read(known, limit=limit)
        if any(not url.startswith("file:") for url in urls):
            digest = str(self._store.put(data))
            if self._store.recall(kept) != digest:
                self._store.remember(kept, digest)
        return data
