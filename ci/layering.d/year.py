"""A year of updates over a catalogue of generated recipes, and what its clients download.

Real are the packages, their sizes and requirements, and the days on which their sources changed (`history.json`, see
extract.py). Drawn, from a seed, are the recipes, and where a year is not real, which of the weeks of a real year come
in which order, all sources together, so that what changed on the same day still does. A package's size stays what it
is. What a client downloads on a night is every layer that it has not from the night before; a layer is the same if the
same versions of the same packages are in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.resolve.auto_layers import BlockPackage, assign_auto_layers
from pipeline.resolve.grouping import LAYER_OVERHEAD

NIGHTS = 365
BLOCK = 28
"""Days of a year that are drawn as one."""

CHANGELOG_ENTRIES = 20
"""As many entries has a changelog of the development mirror's RPMs; more of the past is not shown to `auto`."""

STATE_BYTES, STATE_BYTES_OF_PACKAGE = 216_000, 8_600
"""The state layer, as measured of two real images: 543 kB with 38 packages, 749 kB with 62."""

BASE = ("bash", "coreutils", "tzdata", "ca-certificates")
PRODUCTS = (
    *("nginx", "mysql-server", "postgresql-server", "python3", "redis", "haproxy", "httpd", "mariadb-server"),
    *("memcached", "valkey", "curl"),
)
_HISTORY = Path(__file__).with_name("history.json")


@dataclass(frozen=True, slots=True)
class Ware:
    """One package: its source, bytes to download, and what it requires."""

    name: str
    source: str
    size: int
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All packages, and the days on which each source changed, sorted."""

    wares: Mapping[str, Ware]
    days: Mapping[str, tuple[int, ...]]


@cache
def history() -> History:
    """What extract.py wrote."""
    read = json.loads(_HISTORY.read_text())
    wares = {name: Ware(name, source, size, tuple(needs)) for name, (source, size, needs) in read["packages"].items()}
    return History(wares, {name: tuple(days) for name, days in read["sources"].items()})


@dataclass(frozen=True, slots=True)
class Year:
    """What happens: the days before `start`, and source → nights (1 … NIGHTS) on which it changes."""

    start: int
    past: Mapping[str, tuple[int, ...]]
    nights: Mapping[str, tuple[int, ...]]

    def changed(self, source: str, night: int) -> int:
        """How often a source changed up to a night."""
        return sum(one <= night for one in self.nights[source])


def real_year(start: int) -> Year:
    """The year after the day `start`, as it was."""
    past, nights = {}, {}
    for source, days in history().days.items():
        past[source] = tuple(day for day in days if day <= start)
        nights[source] = tuple(day - start for day in days if start < day <= start + NIGHTS)
    return Year(start, past, nights)


def drawn_year(start: int, seed: int) -> Year:
    """A year of blocks of BLOCK days out of the year after `start`, each with all that changed in it."""
    real, draw = real_year(start), random.Random(f"year {seed}")
    nights: dict[str, set[int]] = {source: set() for source in real.nights}
    for first in range(1, NIGHTS + 1, BLOCK):
        begin = draw.randint(1, NIGHTS - BLOCK + 1)
        for source, days in real.nights.items():
            moved = (day - begin + first for day in days if begin <= day < begin + BLOCK)
            nights[source] |= {night for night in moved if night <= NIGHTS}
    return Year(start, real.past, {source: tuple(sorted(found)) for source, found in nights.items()})


@dataclass(frozen=True, slots=True)
class Product:
    """A recipe of the catalogue: its packages, sorted, and those of the base that all have."""

    packages: tuple[Ware, ...]
    base: frozenset[str]

    @property
    def state(self) -> int:
        """Bytes of the state layer."""
        return STATE_BYTES + STATE_BYTES_OF_PACKAGE * len(self.packages)

    @property
    def sources(self) -> tuple[str, ...]:
        """What it is made from, sorted."""
        return tuple(sorted({ware.source for ware in self.packages}))


def closure(names: Iterable[str]) -> frozenset[str]:
    """The packages and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += history().wares[name].needs
    return frozenset(found)


def catalogue(count: int, seed: int) -> list[Product]:
    """Generated recipes: what lies below all, one to three products, and up to five other packages."""
    draw, wares = random.Random(f"catalogue {seed}"), history().wares
    made = []
    for _ in range(count):
        asked = [*BASE, *draw.sample(PRODUCTS, draw.choice((1, 1, 1, 2, 2, 3)))]
        asked += draw.sample(sorted(wares), draw.randint(0, 5))
        packages = tuple(wares[name] for name in sorted(closure(asked)))
        made.append(Product(packages, closure(BASE)))
    return made


Layer = frozenset[tuple[str, int]]
"""Which packages are in a layer, and in which version."""

Grouping = Sequence[frozenset[str]]
"""The sources of each layer."""

Planner = Callable[[Product, Year], Iterator[tuple[int, list[Layer]]]]
"""The layers of a product on night 0, and on each night on which one of its sources changes."""


def fixed(grouping: Callable[[Product, Year], Grouping]) -> Planner:
    """Layers by source that stay as they are for the year."""

    def plan(product: Product, year: Year) -> Iterator[tuple[int, list[Layer]]]:
        groups = grouping(product, year)
        for night, versions in _nights(product, year):
            yield (
                night,
                [
                    frozenset((w.name, versions[w.source]) for w in product.packages if w.source in group)
                    for group in groups
                ],
            )

    return plan


def _nights(product: Product, year: Year) -> Iterator[tuple[int, dict[str, int]]]:
    """Night 0 and all on which something changes, with how often each source changed until then."""
    versions = dict.fromkeys(product.sources, 0)
    yield 0, versions
    for night in sorted({night for source in product.sources for night in year.nights[source]}):
        for source in product.sources:
            versions[source] += night in year.nights[source]
        yield night, versions


def one_layer(product: Product, year: Year) -> Grouping:
    """All in one."""
    return [frozenset(product.sources)]


def by_request(product: Product, year: Year) -> Grouping:
    """What the base needs, and the rest: the two layers that the recipes here have."""
    base = frozenset(ware.source for ware in product.packages if ware.name in product.base)
    return [base, frozenset(product.sources) - base]


def largest_apart(at_most: int) -> Callable[[Product, Year], Grouping]:
    """A layer for each of the largest sources, and one for the rest."""

    def grouping(product: Product, year: Year) -> Grouping:
        sizes = {source: sum(w.size for w in product.packages if w.source == source) for source in product.sources}
        order = sorted(product.sources, key=lambda source: (-sizes[source], source))
        return [*(frozenset([source]) for source in order[: at_most - 1]), frozenset(order[at_most - 1 :])]

    return grouping


def auto(at_most: int, *, below: int = 0, moving: bool = True) -> Planner:
    """What relbuild does with `auto`, from what changelogs say on each night. `below`: so many of the layers are for
    the base, which every recipe includes and which is a block of its own; 0: all is one block. `moving`: it may regroup
    in the year."""

    def plan(product: Product, year: Year) -> Iterator[tuple[int, list[Layer]]]:
        blocks = [("base", product.base, below), ("product", frozenset[str](), at_most - below)]
        former: dict[str, dict[str, tuple[str, str]]] = {}
        placed: dict[str, str] = {}
        for night, versions in _nights(product, year):
            if moving or not placed:
                everyone = [_resident(ware, year, night, versions[ware.source]) for ware in product.packages]
                for block, names, most in blocks:
                    inside = [one for one in everyone if below and (one.key in product.base) == bool(names)]
                    residents = inside if below else everyone
                    if most:
                        placed |= assign_auto_layers(block, residents, most, former.get(block))
                        former[block] = {one.name: (placed[one.key], one.content) for one in residents}
            layers: dict[str, set[tuple[str, int]]] = {}
            for ware in product.packages:
                layers.setdefault(placed[ware.name], set()).add((ware.name, versions[ware.source]))
            yield night, [frozenset(layer) for layer in layers.values()]

    return plan


def _resident(ware: Ware, year: Year, night: int, version: int) -> BlockPackage:
    in_year = [year.start + one for one in year.nights[ware.source] if one <= night]
    days = (*year.past[ware.source], *in_year)[-CHANGELOG_ENTRIES:]
    return BlockPackage(
        ware.name, ware.name, ware.source, ware.size, f"{ware.name} {version}", days, year.start + night
    )


def layer_size(layer: Layer) -> int:
    """Bytes to download."""
    wares = history().wares
    return sum(wares[name].size for name, _ in layer) + LAYER_OVERHEAD if layer else 0


@dataclass(frozen=True, slots=True)
class Downloads:
    """Bytes that a client downloads: the `first` night, and in the `updates` of the year, of which `state` are state
    layers."""

    first: int
    updates: int
    state: int

    def __add__(self, other: Downloads) -> Downloads:
        return Downloads(self.first + other.first, self.updates + other.updates, self.state + other.state)


Plan = Sequence[tuple[int, Sequence[Layer]]]
"""A product's layers from each night on that it is made anew."""


def client(products: Sequence[Product], plans: Sequence[Plan]) -> Downloads:
    """What a client of some products downloads that has each night's images; a layer in several counts once."""
    events = sorted((night, number, layers) for number, plan in enumerate(plans) for night, layers in plan)
    now: dict[int, Sequence[Layer]] = {}
    first = updates = state = 0
    for night in sorted({event[0] for event in events}):
        held = {layer for layers in now.values() for layer in layers}
        mine = [(number, layers) for when, number, layers in events if when == night]
        new = {layer for _, layers in mine for layer in layers} - held
        now.update(mine)
        size = sum(layer_size(layer) for layer in new)
        tops = sum(products[number].state for number, _ in mine)
        if night == 0:
            first += size + tops
        else:
            updates += size + tops
            state += tops
    return Downloads(first, updates, state)
