"""Optimise the grouping of packages into layers, to minimise the coming year's downloads.

A layer with one changed package is downloaded whole. So the cost of a layer in a year is its size times the number of
nights on which at least one of its sources changes:

    year(layer) = (size + LAYER_OVERHEAD) × nights(layer)
    nights(layer) = 365 × (1 - exp(-together × Σ rate / 365))

The packages of one source change together and are never separated. A source's `rate` is its expected changes in a year:
estimated from the days on which it changed before, with more weight on later ones, and shrunk towards a common rate
where there are few. `together` is the share of past nights that remains when nights on which several sources of the
layer changed count once: packages that are updated or rebuilt together cost one download. A layer of one source alone
is the same in every image with these packages, so it counts SINGLE_SOURCE_SHARE of that: sometimes a client has it from
another image.

Clients have the layers of a published image, so a change of its grouping costs the download of the new layers once. The
sum of the coming year's and these bytes is minimised, so that a grouping changes only where it pays. By the triangle
inequality the best grouping is still the best once it is published.

The state layer on top changes with every update whatever the grouping, so it is left out. The result depends on the
pieces alone: the same pieces give the same groups in every recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass

DAYS_OF_YEAR = 365

LAYER_OVERHEAD = 16 << 10
"""Bytes of a layer's download besides its packages: directories, requests, lines in the manifest."""

HORIZON = 5
"""Number of past years that are considered."""

FADING = 0.5
"""Weight of a year relative to the one after it."""

PRIOR_RATE = 1.5
"""Changes in a year of a source without history."""

PRIOR_YEARS = 0.5
"""Weight of PRIOR_RATE, in years of observation."""

SINGLE_SOURCE_SHARE = 0.8
"""Weight of a byte in a layer of one source alone, relative to one in a layer of several."""

NEARLY = 0.97
"""If the former grouping costs no more than this share of another start, that start is not improved: it takes time, and
hardly ever wins."""

ROUNDS_MOST = 40
"""Rounds of improvement at most; ten are usually enough."""

_YEARS = tuple((FADING**year, ((1 << DAYS_OF_YEAR) - 1) << (DAYS_OF_YEAR * year)) for year in range(HORIZON))


@dataclass(frozen=True, slots=True)
class SourcePackages:
    """The packages of one source, which are never separated.

    `size` is bytes to download, `days` are the days on which the source is known to have changed, as day numbers in any
    order: its observation begins on the first. `packages` identify the packages' exact bytes, `layer` is the source's
    former layer.
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

    Names are unique; groups that change least come first, names in one are sorted. `today` is a day number: later days
    are ignored. `former` are the layers of the published image, name → packages.
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

    `members` has a bit for each, `rate` is the sum of their rates, `seen` has a bit for each past day on which one of
    them changed, the newest lowest, and `apart` is the sum of their weighted days if each piece's counted by itself.
    """

    members: int = 0
    size: int = 0
    rate: float = 0.0
    seen: int = 0
    apart: float = 0.0

    def __or__(self, other: LayerGroup) -> LayerGroup:
        """Return the union of two groups without common pieces."""
        return LayerGroup(
            self.members | other.members,
            self.size + other.size,
            self.rate + other.rate,
            self.seen | other.seen,
            self.apart + other.apart,
        )


def nights(one: LayerGroup) -> float:
    """Return the expected number of nights in a year on which a group changes."""
    together = _weight(one.seen) / one.apart if one.apart else 1.0
    return -DAYS_OF_YEAR * math.expm1(-together * one.rate / DAYS_OF_YEAR)


def _weight(seen: int) -> float:
    """Return the weighted number of days in `seen`, each year FADING times the one after it."""
    weight = 0.0
    for fading, year in _YEARS:
        weight += fading * (seen & year).bit_count()
    return weight


def group_of_one(piece: SourcePackages, number: int, today: int) -> LayerGroup:
    """Return the group of one piece.

    Its rate is the mean of the posterior gamma distribution, from a prior of PRIOR_RATE over PRIOR_YEARS and its days
    since the first, each year weighted FADING times the one after it.
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
    """Search for the cheapest grouping: a list of groups that has every piece once."""

    def __init__(
        self, pieces: Sequence[SourcePackages], at_most: int, today: int, former: Mapping[str, frozenset[str]]
    ) -> None:
        self._at_most = at_most
        self._pieces = [group_of_one(piece, number, today) for number, piece in enumerate(pieces)]
        self._held = frozenset(_still_there(pieces, former))

    def cost(self, one: LayerGroup) -> float:
        """Return the bytes of a group in the coming year, and once if it is new."""
        if not one.members:
            return 0.0
        share = 1.0 if one.members & (one.members - 1) else SINGLE_SOURCE_SHARE
        return share * (one.size + LAYER_OVERHEAD) * (nights(one) + (one.members not in self._held))

    def total(self, groups: Sequence[LayerGroup]) -> float:
        """Return the bytes of a grouping."""
        return sum(self.cost(one) for one in groups)

    def standing(self, pieces: Sequence[SourcePackages]) -> list[LayerGroup]:
        """Return the former grouping, with new pieces where they cost least."""
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

        Large pieces that seldom change are at one end of the order, small ones that often change at the other; each
        group is an interval of it.
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
        """Add a piece to the cheapest group; to `home` if none costs less than `stay`."""
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
        """Join the two groups whose union costs least."""
        pairs = [(x, y) for place, x in enumerate(groups) for y in groups[:place]]
        x, y = min(pairs, key=lambda pair: self.cost(pair[0] | pair[1]) - self.cost(pair[0]) - self.cost(pair[1]))
        return [*(one for one in groups if one not in (x, y)), x | y]


def _still_there(pieces: Sequence[SourcePackages], former: Mapping[str, frozenset[str]]) -> Iterator[int]:
    """Yield the members of former layers whose packages are all unchanged."""
    for layer in former.values():
        inside = [number for number, piece in enumerate(pieces) if piece.packages <= layer]
        if frozenset[str]().union(*(pieces[number].packages for number in inside)) == layer:
            yield sum(1 << number for number in inside)


def _numbers(members: int) -> Iterator[int]:
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low
