"""The best grouping that can be found by one who knows the year: what `auto` is measured against.

A fixed grouping of a product's sources into as many layers, without any rule of what may stand together. The search
knows every night on which a source will change. It starts from many groupings (at random, and by how often a source
will change for its size), makes every move of one source and every exchange of two that helps,
until none does, then shakes the best that it has and goes on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from year import Grouping, Product, Year

from pipeline.resolve.grouping import LAYER_OVERHEAD

RESTARTS = 8
SHAKES = 12
SHAKEN = 0.15
"""The share of sources that are put anywhere in a shake."""


def best_grouping(product: Product, year: Year, at_most: int, *, seed: int, effort: int = 1) -> Grouping:
    """The best that is found, with so many times the usual starts and shakes."""
    names = product.sources
    search = _Search(
        [sum(ware.size for ware in product.packages if ware.source == name) for name in names],
        [sum(1 << night for night in year.nights[name]) for name in names],
        at_most,
        random.Random(f"hindsight {seed}"),
    )
    starts = [search.by_ratio(), *(search.at_random() for _ in range(RESTARTS * effort))]
    groups = search.best(starts, shakes=SHAKES * effort)
    return [frozenset(names[number] for number in group) for group in groups if group]


class _Search:
    """Sources are numbers; a grouping is the group of each."""

    def __init__(self, sizes: list[int], nights: list[int], at_most: int, draw: random.Random) -> None:
        self._sizes, self._nights, self._most, self._draw = sizes, nights, at_most, draw
        self._all = range(len(sizes))

    def at_random(self) -> list[list[int]]:
        groups: list[list[int]] = [[] for _ in range(self._most)]
        for number in self._all:
            self._draw.choice(groups).append(number)
        return groups

    def by_ratio(self) -> list[list[int]]:
        order = sorted(self._all, key=lambda n: (self._nights[n].bit_count() / self._sizes[n], n))
        share = -(-len(order) // self._most)
        return [order[begin : begin + share] for begin in range(0, len(order), share)]

    def best(self, starts: Sequence[Sequence[Sequence[int]]], *, shakes: int) -> list[list[int]]:
        found = [self._settled([set(group) for group in start]) for start in starts]
        cost, best = min(found, key=lambda one: one[0])
        for _ in range(shakes):
            shaken = [set(group) for group in best]
            for number in self._draw.sample(self._all, max(2, int(len(self._all) * SHAKEN))):
                for group in shaken:
                    group.discard(number)
                self._draw.choice(shaken).add(number)
            again, groups = self._settled(shaken)
            if again < cost:
                cost, best = again, groups
        return [sorted(group) for group in best]

    def _cost(self, group: set[int]) -> int:
        nights = size = 0
        for number in group:
            nights |= self._nights[number]
            size += self._sizes[number]
        return (size + LAYER_OVERHEAD) * nights.bit_count()

    def _settled(self, groups: list[set[int]]) -> tuple[int, list[set[int]]]:
        """A grouping that no move and no exchange makes better, and its bytes."""
        groups += [set() for _ in range(self._most - len(groups))]
        costs = [self._cost(group) for group in groups]
        better = True
        while better:
            better = self._moved(groups, costs) or self._exchanged(groups, costs)
        return sum(costs), groups

    def _moved(self, groups: list[set[int]], costs: list[int]) -> bool:
        any_better = False
        for number in self._all:
            home = next(place for place, group in enumerate(groups) if number in group)
            left = self._cost(groups[home] - {number})
            price, place, cost = min(
                (cost - costs[place], place, cost)
                for place, group in enumerate(groups)
                if place != home
                for cost in (self._cost(group | {number}),)
            )
            if price < costs[home] - left:
                groups[home].discard(number)
                groups[place].add(number)
                costs[home], costs[place] = left, cost
                any_better = True
        return any_better

    def _exchanged(self, groups: list[set[int]], costs: list[int]) -> bool:
        any_better = False
        for a in range(len(groups)):
            for b in range(a):
                for x in sorted(groups[a]):
                    for y in sorted(groups[b]):
                        if x not in groups[a] or y not in groups[b]:
                            continue
                        one, two = groups[a] - {x} | {y}, groups[b] - {y} | {x}
                        costs_now = self._cost(one), self._cost(two)
                        if sum(costs_now) < costs[a] + costs[b]:
                            groups[a], groups[b] = one, two
                            costs[a], costs[b] = costs_now
                            any_better = True
        return any_better
