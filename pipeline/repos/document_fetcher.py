"""Fetch small documents without a known checksum, and keep them for offline use.

They are repomd.xml, its signature, metalinks and keys; they are fetched each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.beneath import read_file
from pipeline.digest import Digest, identity
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.store import Store
from pipeline.transfer import Network, fetch_document

_PAUSE = 4
"""Times the network's first pause, after which a refused document is fetched once more: two seconds. A repository that
is being written, or a network's sign-on page, has often changed by then."""

_NAMED_LIMIT = 4096
"""Bytes of the record that names a kept copy's digest, sealed: about 200."""

_T = TypeVar("_T")


class DocumentFetcher:
    """A reader of small documents by URL.

    With `offline`, the kept copy is returned instead; `file://` is always read.
    """

    def __init__(self, store: Store, *, offline: bool = False, network: Network | None = None) -> None:
        self._store = store
        self._offline = offline
        self._network = network or Network()

    def get(self, url: str, *, limit: int, read: Callable[[bytes], _T], hurried: bool = False) -> _T:
        """Fetch the document at `url`, and return what `read` makes of it.

        A document that `read` refuses is fetched once more after a pause, and is not kept. `hurried`: there are other
        mirrors, so timeouts are short and nothing is fetched twice. Raises as `fetch_document`, and what `read` raises.
        """
        final = hurried or self._offline or url.startswith("file:")
        try:
            return self._read(url, limit, read, hurried)
        except VerificationError:
            if final:
                raise
        time.sleep(self._network.backoff * _PAUSE)
        return self._read(url, limit, read, hurried)

    def plain(self, url: str, *, limit: int) -> bytes:
        """Fetch a document that is verified together with another, once and without keeping it."""
        return self._fetched(url, limit, self._network)

    def keep(self, url: str, data: bytes) -> None:
        """Keep a document for offline use."""
        if not self._offline and not url.startswith("file:"):
            self._store.remember(_name(url), str(self._store.put(data)))

    def _read(self, url: str, limit: int, read: Callable[[bytes], _T], hurried: bool) -> _T:
        data = self._fetched(url, limit, self._network.hurry() if hurried else self._network)
        value = read(data)
        self.keep(url, data)
        return value

    def _fetched(self, url: str, limit: int, network: Network) -> bytes:
        try:
            return fetch_document([url], limit=limit, offline=self._offline, network=network)
        except EnvironmentLacking as error:
            known = self._store.recall(_name(url)) if error.code == "offline-miss" else None
            if not isinstance(known, str) or not self._store.has(Digest.parse(known)):
                raise
            read_file(self._store.result(_name(url)), _NAMED_LIMIT)  # For the log of reads: a later copy has another.
            return self._store.read(Digest.parse(known), limit=limit)


def _name(url: str) -> Digest:
    return identity("document", 1, urls=[url])
