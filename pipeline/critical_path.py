"""Find the chain of work that decided how long a whole took."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A piece of work: its name, and when it began and ended, in any unit.

    `subject`: what it is done for; work for the same subject is done one after the other.
    """

    name: str
    began: float
    ended: float
    subject: str = ""


def critical_path(intervals: Sequence[Interval], slack: float = 0.0) -> tuple[Interval, ...]:
    """Return the chain of intervals that ends with the last, in order of time.

    Before each stands the one that ended last before it began, or up to `slack` after: what it waited for. One for the
    same subject goes before all others. Of several that ended together the longest counts. Nothing of the chain
    overlaps by more than `slack`.
    """
    path: list[Interval] = []
    earlier = [one for one in intervals if one.ended > one.began]
    while earlier:
        same = [one for one in earlier if path and one.subject == path[-1].subject]
        last = max(same or earlier, key=lambda one: (one.ended, one.ended - one.began))
        path.append(last)
        earlier = [one for one in earlier if one.ended <= last.began + slack and one.began < last.began]
    return tuple(reversed(path))
