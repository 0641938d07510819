"""Order of a catalogue's products: those first on which the end of the night depends most.

A night ends when its last product does, so that long products, and those on which others wait, begin early (list
scheduling by the longest path; R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from pipeline.nightly.catalogue import Catalogue, CatalogueEntry

UNKNOWN_TIME = 1000
"""Milliseconds that a product is taken to need where no product's time is known: all count alike."""


def order_by_longest_path(catalogue: Catalogue, times: Mapping[str, int]) -> list[CatalogueEntry]:
    """Return a catalogue's entries, those with the longest path behind them first.

    A path leads over products that wait for one another to the end of the night.

    `times` are the milliseconds that products took when they were built last; one that is not among them is taken to
    need as much as the middle one. Entries with paths of the same length stay in their order.
    """
    usual = int(statistics.median(times.values())) if times else UNKNOWN_TIME
    dependents: dict[str, list[str]] = {}
    for entry in catalogue.entries:
        for name in (entry.parent, *(one.name for one in catalogue.followed(entry))):
            dependents.setdefault(name, []).append(entry.name)
    longest: dict[str, int] = {}

    def path(name: str) -> int:
        if name not in longest:
            after = max((path(one) for one in dependents.get(name, ())), default=0)
            longest[name] = max(1, times.get(name, usual)) + after
        return longest[name]

    return sorted(catalogue.entries, key=lambda entry: -path(entry.name))
