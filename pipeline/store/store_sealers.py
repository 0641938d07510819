"""Sealers and seals of a store, from its HMAC key, which is read or made on first use."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import field
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.store.authenticated_values import Sealer
from pipeline.store.seal_key import make_key, read_key


@dataclass(slots=True)
class StoreSealers:
    """Seals under the key of the store at `root`, or under `given`, which a CI gives instead."""

    root: Path
    given: bytes | None = field(repr=False)
    _own: bytes | None = field(default=None, repr=False)
    _sealers: dict[str, Sealer] = field(default_factory=dict, repr=False)

    def seal(self, data: bytes) -> str:
        """Return the seal on `data`: HMAC-SHA256 (RFC 2104), 64 hex digits.

        The key is made if there is none.
        """
        return hmac.new(self._key_made(), data, hashlib.sha256).hexdigest()

    def known(self, kind: str) -> Sealer | None:
        """Return the sealer of a kind of value; None if there is no key yet, so nothing was sealed."""
        known = self._sealers.get(kind)
        if known is None and (key := self._key()) is not None:
            known = self._sealers[kind] = Sealer.of(key, kind)
        return known

    def made(self, kind: str) -> Sealer:
        """Return the sealer of a kind of value; the key is made if there is none."""
        self._key_made()
        sealer = self.known(kind)
        assert sealer is not None, "there is a key now"
        return sealer

    def _key(self) -> bytes | None:
        """Return the key, or None."""
        if self.given is not None:
            return self.given
        if self._own is None:
            self._own = read_key(self.root)
        return self._own

    def _key_made(self) -> bytes:
        key = self._key()
        if key is None:
            key = self._own = make_key(self.root)
        return key
