"""Group packages into layers so that those who follow an image download the least.

What counts is the year to come.

A layer with one changed package is downloaded whole. So what a layer costs in a year is its size times the number of
nights on which at least one of its sources changes:

    year(layer) = (size + LAYER_OVERHEAD) × nights(layer)
    nights(layer) = 365 × (1 - exp(-together × Σ rate / 365))

The packages of one source change together and are never parted. A source's `rate` is how often it will change in a
year: the days on which it changed before, later ones counting more, drawn towards a common rate where there are few.
`together` is the share of past nights that is left when nights on which several sources of the layer changed count
once: what is updated in one go, or rebuilt together, costs one download. A layer of one source alone is the same in
every image that has these packages of it, whatever else is there, so it counts SINGLE_SOURCE_SHARE of that: now
and then its downloader has it from another image.

An image that is there already has layers that its users hold. To leave its grouping costs tonight the layers that are
new. What is minimised is both, the coming year's bytes and tonight's, so that a grouping is left only for one that is
worth it. By the triangle inequality the best grouping is still the best once it is in place.

The state layer on top changes with every update whatever the grouping, so it is no part of this. The result is a
function of the pieces alone: the same pieces give the same groups in every recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

DAYS_OF_YEAR = 365

LAYER_OVERHEAD = 16 << 10
"""Bytes that a layer costs beside its packages with each download: directories, requests, lines in the manifest."""

HORIZON = 5
"""Years that are looked back."""

FADING = 0.5
"""How much a year counts beside the one after it."""

PRIOR_RATE = 1.5
"""Changes in a year of a source of which nothing is known."""

PRIOR_YEARS = 0.5
"""How many years of watching that is worth."""

SINGLE_SOURCE_SHARE = 0.8
"""What a byte counts in a layer of one source alone, beside one in a layer of several."""

NEARLY = 0.97
"""Where what is there costs no more than this part of another start, the other is not improved: it takes time, and
hardly ever wins."""

ROUNDS_MOST = 40
"""Rounds of improvement: ten are plenty, and it has to end."""

_YEARS = tuple((FADING**year, ((1 << DAYS_OF_YEAR) - 1) << (DAYS_OF_YEAR * year)) for year in range(HORIZON))


@dataclass(frozen=True, slots=True)
class SourcePackages:
    """The packages of one source, which are never parted.

    `size` is bytes to download, `days` are the days on which the source is known to have changed, as numbers of days in
    any order: watching began on the first of them. `packages` tells the packages' exact bytes, `layer` is the former
    layer that the source was in.
    """

    name: str
    size: int
    days: tuple[int, ...]
    packages: frozenset[str]
    layer: str | None = None


def group_sources(
    pieces: Sequence[SourcePackages], at_most: int, *, today: int, former: Mapping[str, frozenset[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return the names of `pieces` in at most `at_most` groups.

    The names are unique; what changes least comes first, names are sorted. `today` is the day that it is: what comes
    after it is not looked at. `former` are the layers of the image that is there, name → packages.
    """
    if not pieces:
        return ()
    ordered = sorted(pieces, key=lambda piece: piece.name)
    search = _Search(ordered, at_most, today, former or {})
    best = search.consecutive()
    if former:
        standing = search.improved(search.standing(ordered))
        if search.total(standing) > search.total(best) * NEARLY:
            best = search.improved(best)
        best = min(standing, best, key=search.total)
    else:
        best = search.improved(best)
    return tuple(
        tuple(piece.name for number, piece in enumerate(ordered) if one.members >> number & 1)
        for one in sorted(best, key=lambda one: (nights(one), one.members))
    )


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """A set of pieces that share a layer.

    `members` has a bit for each, `rate` is the sum of theirs, `seen` has a bit for each past day on which one of them
    changed, the youngest lowest, and `apart` are as many nights as there would be if each piece's counted for itself.
    """

    members: int = 0
    size: int = 0
    rate: float = 0.0
    seen: int = 0
    apart: float = 0.0

    def __or__(self, other: LayerGroup) -> LayerGroup:
        """Both together; they have no piece in common."""
        return LayerGroup(
            self.members | other.members,
            self.size + other.size,
            self.rate + other.rate,
            self.seen | other.seen,
            self.apart + other.apart,
        )


def nights(one: LayerGroup) -> float:
    """On how many nights of a year a group will change."""
    together = _weight(one.seen) / one.apart if one.apart else 1.0
    return -DAYS_OF_YEAR * math.expm1(-together * one.rate / DAYS_OF_YEAR)


def _weight(seen: int) -> float:
    """The days in `seen`, each year's counting FADING of those of the one after it."""
    weight = 0.0
    for fading, year in _YEARS:
        weight += fading * (seen & year).bit_count()
    return weight


def group_of_one(piece: SourcePackages, number: int, today: int) -> LayerGroup:
    """Return the group of one piece.

    Its rate is the mean of the gamma distribution that remains of PRIOR_YEARS with PRIOR_RATE after it was watched
    since its first day, each year counting FADING of the one after it.
    """
    first = min(piece.days, default=today)
    ages = [today - day for day in set(piece.days) if first < day <= today]
    seen = sum(1 << age for age in ages if age < HORIZON * DAYS_OF_YEAR)
    changes = _weight(seen)
    watched = (today - first) / DAYS_OF_YEAR
    years = sum(FADING**year * min(1.0, max(0.0, watched - year)) for year in range(HORIZON))
    rate = (changes + PRIOR_RATE * PRIOR_YEARS) / (years + PRIOR_YEARS)
    return LayerGroup(1 << number, piece.size, rate, seen, changes)


class _Search:
    """A grouping is a list of groups that has every piece once."""

    def __init__(
        self, pieces: Sequence[SourcePackages], at_most: int, today: int, former: Mapping[str, frozenset[str]]
    ) -> None:
        self._at_most = at_most
        self._pieces = [group_of_one(piece, number, today) for number, piece in enumerate(pieces)]
        self._held = frozenset(_still_there(pieces, former))

    def cost(self, one: LayerGroup) -> float:
        """The bytes of a group in the coming year and tonight."""
        if not one.members:
            return 0.0
        share = 1.0 if one.members & (one.members - 1) else SINGLE_SOURCE_SHARE
        return share * (one.size + LAYER_OVERHEAD) * (nights(one) + (one.members not in self._held))

    def total(self, groups: Sequence[LayerGroup]) -> float:
        """The bytes of a grouping."""
        return sum(self.cost(one) for one in groups)

    def standing(self, pieces: Sequence[SourcePackages]) -> list[LayerGroup]:
        """The former grouping; what is new goes to where it costs least."""
        by_layer: dict[str, LayerGroup] = {}
        for piece, one in zip(pieces, self._pieces, strict=True):
            if piece.layer is not None:
                by_layer[piece.layer] = by_layer.get(piece.layer, LayerGroup()) | one
        groups = [by_layer[layer] for layer in sorted(by_layer)]
        while len(groups) > self._at_most:
            groups = self._joined(groups)
        for piece, one in zip(pieces, self._pieces, strict=True):
            if piece.layer is None:
                self._put(one, groups)
        return groups

    def consecutive(self) -> list[LayerGroup]:
        """Return the best grouping of pieces that are consecutive in order of rate per byte.

        What seldom changes and is large stands at one end, what is small and often changes, which costs little, at the
        other; the groups part this row.
        """
        row = sorted(self._pieces, key=lambda one: (one.rate / (one.size + 1), one.members))
        spans: list[list[tuple[float, LayerGroup]]] = []
        for start in range(len(row)):
            one = LayerGroup()
            spans.append([])
            for piece in row[start:]:
                one = one | piece
                spans[start].append((self.cost(one), one))
        best: list[tuple[float, list[LayerGroup]]] = [(0.0, []), *((math.inf, list[LayerGroup]()) for _ in row)]
        for _ in range(min(self._at_most, len(row))):
            following = list(best)
            for start, (cost, groups) in enumerate(best[:-1]):
                if cost < math.inf:
                    for length, (more, one) in enumerate(spans[start], 1):
                        if cost + more < following[start + length][0]:
                            following[start + length] = (cost + more, [*groups, one])
            best = following
        return best[-1][1]

    def improved(self, groups: Sequence[LayerGroup]) -> list[LayerGroup]:
        """Return a grouping that no single move or join makes better.

        A move takes a piece to another group or to one of its own; a join makes two groups one.
        """
        groups = list(groups)
        for _ in range(ROUNDS_MOST):
            before = self.total(groups)
            for piece in self._pieces:
                self._move(piece, groups)
            if len(groups) > 1 and self.total(joined := self._joined(groups)) < self.total(groups):
                groups = joined
            if self.total(groups) >= before:
                break
        return groups

    def _move(self, piece: LayerGroup, groups: list[LayerGroup]) -> None:
        home = next(place for place, one in enumerate(groups) if one.members & piece.members)
        before = groups[home]
        groups[home] = self._without(before, piece)
        self._put(piece, groups, home, self.cost(before) - self.cost(groups[home]))
        if not groups[home].members:
            del groups[home]

    def _put(
        self, piece: LayerGroup, groups: list[LayerGroup], home: int | None = None, stay: float = math.inf
    ) -> None:
        """Put a piece where it costs least; where that is not less than `stay`, into `home`."""
        best, place = stay, home
        for number, one in enumerate(groups):
            if number != home and one.members and (price := self.cost(one | piece) - self.cost(one)) < best:
                best, place = price, number
        if len(groups) < self._at_most and self.cost(piece) < best:
            place = None
        if place is None:
            groups.append(piece)
        else:
            groups[place] = groups[place] | piece

    def _without(self, one: LayerGroup, piece: LayerGroup) -> LayerGroup:
        left = LayerGroup()
        for number in _numbers(one.members ^ piece.members):
            left = left | self._pieces[number]
        return left

    def _joined(self, groups: Sequence[LayerGroup]) -> list[LayerGroup]:
        """The two groups joined of which that costs least."""
        pairs = [(x, y) for place, x in enumerate(groups) for y in groups[:place]]
        x, y = min(pairs, key=lambda pair: self.cost(pair[0] | pair[1]) - self.cost(pair[0]) - self.cost(pair[1]))
        return [*(one for one in groups if one not in (x, y)), x | y]


def _still_there(pieces: Sequence[SourcePackages], former: Mapping[str, frozenset[str]]) -> Iterator[int]:
    """Yield the former layers that are unchanged, so that nobody downloads them again.

    Each is given by its members: all that was in it is as it was.
    """
    for layer in former.values():
        inside = [number for number, piece in enumerate(pieces) if piece.packages <= layer]
        if frozenset[str]().union(*(pieces[number].packages for number in inside)) == layer:
            yield sum(1 << number for number in inside)


def _numbers(members: int) -> Iterator[int]:
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low
