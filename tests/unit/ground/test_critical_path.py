"""The chain of work that decided how long a whole took."""

from __future__ import annotations

import itertools
import random

import pytest

from pipeline.critical_path import Interval, critical_path


def _names(*intervals: tuple[str, float, float], slack: float = 0.0) -> list[str]:
    return [one.name for one in critical_path([Interval(*each) for each in intervals], slack)]


def test_before_each_stands_what_it_waited_for() -> None:
    """Not what was done beside it."""
    assert _names(("base", 0, 4), ("small", 0, 1), ("other", 1, 3), ("app", 4, 9), ("late", 5, 8)) == ["base", "app"]


def test_of_several_that_ended_together_the_longest_counts() -> None:
    """A short one inside a long one ends with it."""
    assert _names(("whole", 1, 5), ("its end", 4, 5), ("first", 0, 1)) == ["first", "whole"]


def test_a_gap_does_not_end_the_chain() -> None:
    """Something else was waited for, which nobody noted."""
    assert _names(("a", 0, 1), ("b", 3, 4)) == ["a", "b"]


@pytest.mark.parametrize(("slack", "found"), [(0.0, ["b"]), (0.1, ["a", "b"])])
def test_clocks_may_differ_by_the_slack(slack: float, found: list[str]) -> None:
    """One that began a moment before the other ended came after it all the same."""
    assert _names(("a", 0, 1.05), ("b", 1, 2), slack=slack) == found


def test_work_for_the_same_subject_goes_before_what_ended_later() -> None:
    """The end of another product's test is not what this one's layers waited for."""
    work = [
        Interval("other", 0, 3),
        Interval("fetch", 3, 4, "app"),
        Interval("test of other", 3, 5, "other"),
        Interval("layer", 5.5, 7, "app"),
    ]
    assert [one.name for one in critical_path(work)] == ["other", "fetch", "layer"]


def test_nothing_has_no_path() -> None:
    """Nor has what took no time."""
    assert _names() == [] and _names(("a", 1, 1)) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_chain_is_in_order_and_does_not_overlap(seed: int) -> None:
    """Whatever the intervals are, it ends with what ended last."""
    draw = random.Random(seed)
    intervals = [Interval(str(n), at := draw.uniform(0, 9), at + draw.uniform(0.1, 3)) for n in range(12)]
    path = critical_path(intervals)
    assert path[-1].ended == max(one.ended for one in intervals)
    assert all(before.ended <= after.began for before, after in itertools.pairwise(path))
