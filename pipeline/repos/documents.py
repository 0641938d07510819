"""Small documents that have no checksum of their own (repomd.xml, its signature, metalinks, keys), fetched
each time and kept for the time without a network."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digest import Digest, identity
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
            known = self._store.recall(kept) if error.code == "offline-miss" else None
            if not isinstance(known, str) or not self._store.has(Digest.parse(known)):
                raise
            return self._store.read(Digest.parse(known), limit=limit)
        if any(not url.startswith("file:") for url in urls):
            self._store.remember(kept, str(self._store.put(data)))
        return data
