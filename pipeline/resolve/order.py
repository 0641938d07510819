"""Order packages for the transaction as rpm does, requirements first.

The rules are rpm's (lib/order.c): a package comes after what it requires; in a circle, what is needed while
scriptlets run (`Requires(pre)`, `Requires(post)`) counts more than a plain requirement. Ties are broken by
NEVRA, so the order depends on nothing but the packages themselves: libsolv's own order also depends on where
they stand in the metadata, and a lock would change when an unrelated package is added to a repository.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def transaction_order(requires: Mapping[str, Mapping[str, bool]]) -> tuple[str, ...]:
    """Return package names in the order of installation.

    `requires` maps each to the names that it requires; True: already for its scriptlets. Requirements of itself and of
    unknown names count for nothing.
    """
    known = {
        name: {other: pre for other, pre in needs.items() if other != name and other in requires}
        for name, needs in requires.items()
    }
    circles = _circles({name: list(needs) for name, needs in known.items()})
    of = {name: number for number, circle in enumerate(circles) for name in circle}
    waiting = {
        number: len({of[other] for name in circle for other in known[name]} - {number})
        for number, circle in enumerate(circles)
    }
    needed_by: dict[int, set[int]] = {}
    for name, needs in known.items():
        for other in needs:
            if of[other] != of[name]:
                needed_by.setdefault(of[other], set()).add(of[name])
    ready = [(min(circles[number]), number) for number, count in waiting.items() if not count]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        _, number = heapq.heappop(ready)
        ordered.extend(_within(circles[number], known))
        for later in needed_by.get(number, ()):
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, (min(circles[later]), later))
    return tuple(ordered)


def _within(circle: Sequence[str], known: Mapping[str, Mapping[str, bool]]) -> list[str]:
    """Return the members of a circle in the order of installation.

    Next is always the one with fewest missing requirements: first of its scriptlets, then of any kind; then the one
    that most others require.
    """
    left = sorted(circle)
    ordered = []
    while left:
        missing = {name: [pre for other, pre in known[name].items() if other in left] for name in left}
        wanted = {name: sum(name in known[other] for other in left) for name in left}
        best = min(left, key=lambda name: (sum(missing[name]), len(missing[name]), -wanted[name], name))
        left.remove(best)
        ordered.append(best)
    return ordered


def _circles(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the strongly connected components (Tarjan, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(needs):
        if root in index:
            continue
        work = [(root, iter(sorted(needs[root])))]
        while work:
            name, rest = work[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                stack.append(name)
                on_stack.add(name)
            child = next(rest, None)
            if child is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    cut = stack.index(name)
                    found.append(stack[cut:])
                    on_stack.difference_update(stack[cut:])
                    del stack[cut:]
            elif child not in index:
                work.append((child, iter(sorted(needs[child]))))
            elif child in on_stack:
                low[name] = min(low[name], index[child])
    return found
