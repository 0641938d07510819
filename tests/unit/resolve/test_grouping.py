"""Which packages share a layer: what the grouping promises, and how near it comes to the best there is."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.resolve.grouping import (
    DAYS_OF_YEAR,
    LAYER_OVERHEAD,
    PRIOR_RATE,
    SINGLE_SOURCE_SHARE,
    LayerGroup,
    SourcePackages,
    group_of_one,
    group_sources,
    nights,
)

TODAY = 20_000
MB = 1_000_000


def piece(name: str, size: int, *ages: int, layer: str | None = None, content: str | None = None) -> SourcePackages:
    """A source that changed so many days ago."""
    days = tuple(TODAY - age for age in ages)
    return SourcePackages(name, size, days, frozenset([content or name]), layer)


def often(name: str, size: int, every: int = 30, shift: int = 0) -> SourcePackages:
    """A source that changed every so many days for four years."""
    return piece(name, size, *range(shift, 4 * DAYS_OF_YEAR, every))


def rarely(name: str, size: int) -> SourcePackages:
    """A source that changed once, four years ago."""
    return piece(name, size, 4 * DAYS_OF_YEAR)


pieces_of_any_kind = st.lists(
    st.builds(
        lambda name, size, ages: piece(name, size, *ages),
        st.text("abcdefgh", min_size=1, max_size=4),
        st.integers(0, 50 * MB),
        st.lists(st.integers(0, 3000), max_size=12),
    ),
    max_size=12,
    unique_by=lambda one: one.name,
)


@given(pieces_of_any_kind, st.integers(2, 6), st.randoms(use_true_random=False))
def test_every_piece_is_in_one_group_and_their_order_does_not_matter(
    pieces: list[SourcePackages], at_most: int, order: random.Random
) -> None:
    groups = group_sources(pieces, at_most, today=TODAY)
    assert sorted(name for one in groups for name in one) == sorted(one.name for one in pieces)
    assert len(groups) <= at_most and all(groups)
    assert all(list(one) == sorted(one) for one in groups)
    shuffled = list(pieces)
    order.shuffle(shuffled)
    assert group_sources(shuffled, at_most, today=TODAY) == groups


def test_what_often_changes_is_kept_from_what_is_large_and_seldom_does() -> None:
    pieces = [rarely("data", 30 * MB), rarely("libc", 5 * MB), often("certificates", MB), often("zones", MB, 20, 3)]
    assert group_sources(pieces, 2, today=TODAY) == (("data", "libc"), ("certificates", "zones"))


def test_what_changes_least_comes_first() -> None:
    pieces = [often("daily", MB, 7), often("monthly", 5 * MB), rarely("never", 20 * MB)]
    assert group_sources(pieces, 3, today=TODAY) == (("never",), ("monthly",), ("daily",))


def test_what_changes_on_the_same_nights_costs_one_download() -> None:
    """Of four sources of the same size and rate, those that changed together share a layer."""
    pieces = [often("a1", MB, 60), often("b1", MB, 60, 30), often("a2", MB, 60), often("b2", MB, 60, 30)]
    assert {frozenset(one) for one in group_sources(pieces, 2, today=TODAY)} == {
        frozenset({"a1", "a2"}),
        frozenset({"b1", "b2"}),
    }


def test_nights_of_a_group() -> None:
    one, same, other = (
        group_of_one(often(name, MB, 60, shift), number, TODAY)
        for number, (name, shift) in enumerate((("a", 0), ("b", 0), ("c", 30)))
    )
    assert nights(one) == pytest.approx(6, abs=0.8)
    assert nights(one | same) == pytest.approx(nights(one), rel=0.02)
    assert nights(one | other) == pytest.approx(2 * nights(one), rel=0.06)
    daily = LayerGroup(1, MB, rate=10 * DAYS_OF_YEAR)
    assert 0.99 * DAYS_OF_YEAR < nights(daily) <= DAYS_OF_YEAR


def test_the_rate_is_drawn_towards_the_common_one_where_little_is_known() -> None:
    assert group_of_one(piece("new", MB), 0, TODAY).rate == PRIOR_RATE
    assert group_of_one(piece("seen today for the first time", MB, 0), 0, TODAY).rate == PRIOR_RATE
    assert group_of_one(rarely("quiet", MB), 0, TODAY).rate < PRIOR_RATE / 3
    assert group_of_one(often("busy", MB, 10), 0, TODAY).rate == pytest.approx(36.5, rel=0.25)


def test_later_years_count_more() -> None:
    was = piece("was", MB, 4 * DAYS_OF_YEAR, *range(2 * DAYS_OF_YEAR, 3 * DAYS_OF_YEAR, 30))
    now = piece("is", MB, 4 * DAYS_OF_YEAR, *range(0, DAYS_OF_YEAR, 30))
    assert group_of_one(now, 0, TODAY).rate > 3 * group_of_one(was, 1, TODAY).rate


def test_what_comes_after_today_is_not_looked_at() -> None:
    pieces = [often("a", 9 * MB), rarely("b", MB), often("c", 3 * MB, 11), rarely("d", 20 * MB)]
    told = [replace(one, days=(*one.days, *(TODAY + 1 + n for n in range(300)))) for one in pieces]
    assert group_sources(told, 2, today=TODAY) == group_sources(pieces, 2, today=TODAY)


# --- near the best ---------------------------------------------------------------------------------------


def partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """All of them."""
    if not items:
        yield []
        return
    first, *rest = items
    for found in partitions(rest):
        yield [[first], *found]
        for place in range(len(found)):
            yield [*found[:place], [first, *found[place]], *found[place + 1 :]]


def year(groups: Sequence[Sequence[SourcePackages]]) -> float:
    """The bytes of a year, as documented."""
    total = 0.0
    for members in groups:
        together = LayerGroup()
        for number, one in enumerate(members):
            together = together | group_of_one(one, number, TODAY)
        share = SINGLE_SOURCE_SHARE if len(members) == 1 else 1
        total += share * (together.size + LAYER_OVERHEAD) * (nights(together) + 1)
    return total


def test_no_partition_of_a_few_pieces_is_much_better() -> None:
    draw = random.Random(11)
    worse = []
    for _ in range(25):
        pieces = [
            piece(str(number), int(10 ** draw.uniform(4, 7.5)), *draw.sample(range(1800), draw.choice((1, 3, 9, 40))))
            for number in range(7)
        ]
        best = min(
            year([[pieces[n] for n in members] for members in found])
            for found in partitions(range(7))
            if len(found) <= 3
        )
        made = year([[pieces[int(name)] for name in members] for members in group_sources(pieces, 3, today=TODAY)])
        worse.append(made / best)
    assert max(worse) < 1.1 and sum(worse) / len(worse) < 1.01, worse


# --- what is there already -------------------------------------------------------------------------------


def placed(
    pieces: Sequence[SourcePackages], groups: Sequence[Sequence[str]]
) -> tuple[list[SourcePackages], dict[str, frozenset[str]]]:
    """The pieces in the layers of an image, and those layers."""
    layer_of = {name: f"l{number}" for number, members in enumerate(groups) for name in members}
    layers = {
        f"l{number}": frozenset().union(*(one.packages for one in pieces if one.name in members))
        for number, members in enumerate(groups)
    }
    return [replace(one, layer=layer_of.get(one.name)) for one in pieces], layers


@given(pieces_of_any_kind, st.integers(2, 5))
def test_a_grouping_stays_once_it_is_in_place(pieces: list[SourcePackages], at_most: int) -> None:
    groups = group_sources(pieces, at_most, today=TODAY)
    standing, layers = placed(pieces, groups)
    assert set(group_sources(standing, at_most, today=TODAY, former=layers)) == set(groups)


def test_a_little_gain_does_not_move_anything_and_a_large_one_does() -> None:
    """What is in place has to be downloaded again when it moves."""
    library, rest = rarely("library", 20 * MB), often("rest", 5 * MB, 40)
    for every, parted in ((330, False), (20, True)):
        pieces = [library, rest, often("tool", 3 * MB, every)]
        standing, layers = placed(pieces, [["library", "tool"], ["rest"]])
        groups = group_sources(standing, 2, today=TODAY, former=layers)
        assert any({"library", "tool"} <= set(one) for one in groups) is not parted, every


def test_what_is_downloaded_anyway_may_move_for_less() -> None:
    """A layer in which something changed tonight is new whatever is done."""
    pieces = [rarely("library", 20 * MB), piece("tool", MB, 1400, 700), often("rest", MB, 100)]
    standing, layers = placed(pieces, [["library", "tool"], ["rest"]])
    assert any({"library", "tool"} <= set(one) for one in group_sources(standing, 2, today=TODAY, former=layers))
    changed = [replace(one, packages=frozenset([f"{one.name} 2"])) if one.name != "rest" else one for one in standing]
    assert not any({"library", "tool"} <= set(one) for one in group_sources(changed, 2, today=TODAY, former=layers))


def test_fewer_layers_than_there_were() -> None:
    pieces = [often(str(number), MB, 10 + number) for number in range(6)]
    standing, layers = placed(pieces, [[one.name] for one in pieces])
    groups = group_sources(standing, 3, today=TODAY, former=layers)
    assert len(groups) <= 3 and sorted(itertools.chain(*groups)) == [one.name for one in pieces]


def test_what_is_new_joins_what_there_is() -> None:
    pieces = [rarely("library", 20 * MB), often("tool", 3 * MB, 20)]
    standing, layers = placed(pieces, [["library"], ["tool"]])
    groups = group_sources([*standing, rarely("new", MB), often("often", MB, 21)], 2, today=TODAY, former=layers)
    assert set(groups) == {("library", "new"), ("often", "tool")}
