"""The times when what is signed of products' tags is to be renewed.

The store remembers them: a quiet night asks no more.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.digest import Digest, identity
from pipeline.store import Store


def products_due(store: Store, destination: str, products: Iterable[str], now: int) -> tuple[str, ...]:
    """Return the products of whose tags something is to be renewed at `now`.

    Those of which nobody knows are among them. `now` is in milliseconds since the epoch.
    """

    def is_due(product: str) -> bool:
        known = store.recall(_name(destination, product))
        return not isinstance(known, int) or known <= now

    return tuple(product for product in products if is_due(product))


def remember_due(store: Store, destination: str, product: str, when: int) -> None:
    """Remember when it is due next."""
    store.remember(_name(destination, product), when)


def _name(destination: str, product: str) -> Digest:
    return identity("renewal-due", 1, to=destination, product=product)
