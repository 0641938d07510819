"""Steps drawn from the run's seed, for tests of which each step takes long: `RELBUILD_SOAK` has them try all."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

SEED = int(os.environ.setdefault("RELBUILD_SEED", str(secrets.randbelow(10**6))))
"""The seed of the run, which pytest prints at the top; in the environment, so that all its processes have the same."""

SOAK = int(os.environ.get("RELBUILD_SOAK") or 0)
"""Not 0 where there is time: every step is tried, and this many operations are done where there is no end of them."""


def operations(usual: int) -> int:
    """How many operations to do where there is no end of them: `usual`, or more where there is time."""
    return max(SOAK, usual)


def dice(what: str) -> random.Random:
    """Random numbers that are the same for a test whenever the seed is."""
    return random.Random(f"{SEED} {what}")


def drawn(what: str, items: Sequence[T], count: int) -> tuple[T, ...]:
    """As many of the items as `count` says, in their order; all where there is time."""
    if SOAK or count >= len(items):
        return tuple(items)
    return tuple(items[at] for at in sorted(dice(what).sample(range(len(items)), count)))


def stride(every: int) -> int:
    """`every`, or 1 where there is time for all steps."""
    return 1 if SOAK else every


def first_step(what: str, every: int) -> int:
    """The first of the steps to try, from 1 on, where every so many are."""
    return 1 + dice(what).randrange(stride(every))
