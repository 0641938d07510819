"""Remember in the store when products' tag statements are to be renewed next.

So a night without changes need not ask the mirror.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.digest import Digest, digest_file, identity
from pipeline.model.quantities import LONGEST_VALIDITY
from pipeline.store import Store


def products_due(store: Store, destination: str, products: Iterable[str], now: int, *, key: str) -> tuple[str, ...]:
    """Return the products whose tag statements are to be renewed at `now`.

    Products without a remembered time are among them, and so are all for another key. `now` is in milliseconds since
    the epoch; `key` has the fingerprints of the signing key and of former ones.
    """

    def is_due(product: str) -> bool:
        recalled = store.recall(_name(destination, product, key))
        known = recalled[0] if isinstance(recalled, list) and len(recalled) == 1 else None
        # One that is farther away than any statement is valid was remembered by a clock that was ahead.
        return not isinstance(known, int) or known <= now or known > now + LONGEST_VALIDITY * 1000

    return tuple(product for product in products if is_due(product))


def remember_due(store: Store, destination: str, product: str, when: int, *, key: str) -> None:
    """Remember when a product's tag statements are due next; `key` as in `products_due`."""
    store.remember(_name(destination, product, key), [when])  # A number alone would never be collected.


def known_signers(store: Store, key: Path | None, former: Iterable[Path]) -> str:
    """Return the remembered fingerprints of the signing key and former keys.

    As `RunSettings.signers`, and empty ones where there are none: no product's time is remembered under these.
    """
    return ",".join((known_fingerprint(store, key), *(known_fingerprint(store, path) for path in former)))


def known_fingerprint(store: Store, key: Path | None) -> str:
    """Return the remembered fingerprint of a key file; "" if there is none."""
    known = store.recall(_key_name(key)) if key is not None else None
    return known if isinstance(known, str) else ""


def remember_fingerprint(store: Store, key: Path, fingerprint: str) -> None:
    """Remember the fingerprint of a key file: decrypting it needs a password and takes a while."""
    store.remember(_key_name(key), fingerprint)


def _key_name(key: Path) -> Digest:
    return identity("fingerprint", 1, file=digest_file(key))


def _name(destination: str, product: str, key: str) -> Digest:
    return identity("renewal-due", 3, to=destination, product=product, key=key)
