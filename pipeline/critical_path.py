"""Find the chain of work that decided how long a whole took."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A piece of work: its name, and when it began and ended, in any unit."""

    name: str
    began: float
    ended: float


def critical_path(intervals: Sequence[Interval], slack: float = 0.0) -> tuple[Interval, ...]:
    """Return the chain of intervals that ends with the last, in order of time.

    Before each stands the one that ended last before it began, or up to `slack` after: what it waited for. Of several
    that ended together the longest counts. Nothing of the chain overlaps by more than `slack`.
    """
    path: list[Interval] = []
    waiting = [one for one in intervals if one.ended > one.began]
    while waiting:
        last = max(waiting, key=lambda one: (one.ended, one.ended - one.began))
        path.append(last)
        waiting = [
            one for one in waiting if one is not last and one.ended <= last.began + slack and one.began < last.began
        ]
    return tuple(reversed(path))
