"""The steps from a recipe to its packages.

They are resolved or taken from the lock, fetched, verified, read, and their owners numbered.
"""

from pipeline.gather.locking import (
    Locked,
    LockPlan,
    fetch_and_verify,
    group_layers,
    keep_lock,
    locked_packages,
    number_owners,
    plan_lock,
    resolve,
    steadily,
)
from pipeline.gather.order import Order, Workshop
from pipeline.gather.parents import as_parent
from pipeline.gather.sources import obtain_sources
from pipeline.gather.verifying import obtain_archives

__all__ = [
    "LockPlan",
    "Locked",
    "Order",
    "Workshop",
    "as_parent",
    "fetch_and_verify",
    "group_layers",
    "keep_lock",
    "locked_packages",
    "number_owners",
    "obtain_archives",
    "obtain_sources",
    "plan_lock",
    "resolve",
    "steadily",
]
