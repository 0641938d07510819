"""Remember in the store when products' tag statements are to be renewed next.

So a night without changes need not ask the mirror.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.digest import Digest, identity
from pipeline.store import Store


def products_due(store: Store, destination: str, products: Iterable[str], now: int) -> tuple[str, ...]:
    """Return the products whose tag statements are to be renewed at `now`.

    Products without a remembered time are among them. `now` is in milliseconds since the epoch.
    """

    def is_due(product: str) -> bool:
        known = store.recall(_name(destination, product))
        return not isinstance(known, int) or known <= now

    return tuple(product for product in products if is_due(product))


def remember_due(store: Store, destination: str, product: str, when: int) -> None:
    """Remember when a product's tag statements are due next."""
    store.remember(_name(destination, product), when)


def _name(destination: str, product: str) -> Digest:
    return identity("renewal-due", 1, to=destination, product=product)
