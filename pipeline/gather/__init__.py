"""From a recipe to its packages: resolved or taken from the lock, fetched, verified, read, owners numbered."""

from pipeline.gather.locking import Locked, lock_recipe, locked_packages
from pipeline.gather.order import Order, Workshop
from pipeline.gather.parents import as_parent
from pipeline.gather.sources import obtain_sources
from pipeline.gather.verifying import obtain_archives

__all__ = [
    "Locked",
    "Order",
    "Workshop",
    "as_parent",
    "lock_recipe",
    "locked_packages",
    "obtain_archives",
    "obtain_sources",
]
