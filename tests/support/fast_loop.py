"""The tests of `ci/test --fast`: of a test with many parameters some are drawn by the run's seed, all of any other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.sampling import dice

PARAMETERS = 5
"""How many of a test's parameters the loop tries, each time others; CI tries all."""


def left_for_ci(items: Sequence[pytest.Item], asked_for: Sequence[str]) -> list[pytest.Item]:
    """Return the tests that the loop leaves out.

    One that is `asked_for` by its identifier is not left out. Of a test with the mark `costly` one parameter is tried.
    """
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left: list[pytest.Item] = []
    for name, family in families.items():
        count = 1 if family[0].get_closest_marker("costly") else PARAMETERS
        if len(family) > count and not any(name in asked for asked in asked_for):
            drawn = dice(name).sample(range(len(family)), count)
            left += [item for at, item in enumerate(family) if at not in drawn]
    return left
