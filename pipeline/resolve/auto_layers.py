"""Split an `auto` layer into image layers that keep most packages where the lock had them.

A block is a recipe's layer that says `auto`. It is grouped by itself, so one of an included recipe is the same in every
image that has it. The former grouping is read from the lock, that of the included recipe if it has its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.lock import LockSection
from pipeline.model.package import Package
from pipeline.model.recipe import LayerPlan, Recipe
from pipeline.model.resolution import Resolution
from pipeline.resolve.grouping import SourcePackages, group_sources

_SECONDS_OF_DAY = 86_400


@dataclass(frozen=True, slots=True)
class BlockPackage:
    """One package of a block.

    `key` is its NEVRA, `name` identifies it across versions, `source` is the name of its source package, `size` the
    bytes to download, `content` its checksum. `days` are those on which it is known to have changed, `built` is the day
    of its build, all as days since the epoch.
    """

    key: str
    name: str
    source: str
    size: int
    content: str
    days: tuple[int, ...]
    built: int


FormerLayers = Mapping[str, tuple[str, str]]
"""The former layers of a block's packages: name → (layer, content)."""


def block_package(package: Package, days: Sequence[int]) -> BlockPackage:
    """Make a `BlockPackage` from a package and the days of its changelog."""
    nevra = package.nevra
    return BlockPackage(
        key=str(nevra),
        name=f"{nevra.name}.{nevra.arch}",
        # NAME-VERSION-RELEASE.src.rpm
        source=package.source_rpm.rsplit("-", 2)[0] or nevra.name,
        size=package.size,
        content=package.checksum.hex,
        days=tuple(days),
        built=package.build_time // _SECONDS_OF_DAY,
    )


def former_layers(block: str, section: LockSection | None) -> FormerLayers:
    """Return the layers and checksums of a block's packages that a lock records."""
    chosen = section.resolution.chosen if section else ()
    inside = set(auto_layer_names(block, (one.layer for one in chosen)))
    return {
        f"{one.package.nevra.name}.{one.package.nevra.arch}": (one.layer, one.package.checksum.hex)
        for one in chosen
        if one.layer in inside
    }


def assign_auto_layers(
    block: str, residents: Sequence[BlockPackage], at_most: int, former: FormerLayers | None = None
) -> dict[str, str]:
    """Return the layer of each package of a block, by key.

    Unchanged packages keep their layer where possible. The newest day known of the packages counts as today, so that
    the result does not depend on the clock.
    """
    held: dict[str, dict[str, str]] = {}
    for name, (layer, content) in (former or {}).items():
        held.setdefault(layer, {})[name] = content
    contents = {layer: frozenset(packages.values()) for layer, packages in held.items()}
    layer_of = {content: layer for layer, packages in contents.items() for content in packages}
    if len(held) <= at_most and {one.content for one in residents} == layer_of.keys():
        return {one.key: layer_of[one.content] for one in residents}
    by_source: dict[str, list[BlockPackage]] = {}
    for one in residents:
        by_source.setdefault(one.source, []).append(one)
    pieces = [
        SourcePackages(
            name=source,
            size=sum(one.size for one in members),
            days=tuple(sorted({day for one in members for day in one.days})),
            packages=frozenset(one.content for one in members),
            layer=_most(held, members),
        )
        for source, members in by_source.items()
    ]
    today = max((day for one in residents for day in (one.built, *one.days)), default=0)
    groups = [
        [one for source in sources for one in by_source[source]]
        for sources in group_sources(pieces, at_most, today=today, former=contents)
    ]
    return {one.key: name for name, members in zip(_named(block, groups, held), groups, strict=True) for one in members}


def _share(members: Sequence[BlockPackage], names: Mapping[str, str]) -> int:
    """Return the bytes of the packages that a former layer had too, plus 1 for each."""
    return sum(one.size + 1 for one in members if one.name in names)


def _most(held: Mapping[str, Mapping[str, str]], members: Sequence[BlockPackage]) -> str | None:
    """Return the former layer that has most of the packages of a source."""
    layer = max(sorted(held), key=lambda layer: _share(members, held[layer]), default=None)
    return layer if layer is not None and _share(members, held[layer]) else None


def _named(block: str, groups: Sequence[Sequence[BlockPackage]], held: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a name for each group of packages.

    It is that of the former layer of which the group has most, else the first free number.
    """
    claims = sorted(
        (-_share(members, names), layer, number)
        for number, members in enumerate(groups)
        for layer, names in held.items()
    )
    named: dict[int, str] = {}
    for share, layer, number in claims:
        if share and number not in named and layer not in named.values():
            named[number] = layer
    free = (name for count in range(1, len(groups) + 1) if (name := f"{block}-{count}") not in set(named.values()))
    return [named.get(number) or next(free) for number in range(len(groups))]


def auto_layer_names(block: str, layers: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a block's layers among an image's `layers`, the lowest first."""
    form = re.compile(re.escape(block) + r"-(\d+)")
    found = sorted((int(match[1]), layer) for layer in set(layers) if (match := form.fullmatch(layer)))
    return tuple(layer for _, layer in found)


def image_layers(recipe: Recipe, resolution: Resolution) -> tuple[tuple[str, LayerPlan], ...]:
    """Return the package layers of an image, the lowest first.

    Each comes with its plan in the recipe.
    """
    names = [one.layer for one in resolution.chosen]
    return tuple(
        (name, plan)
        for plan in recipe.layers
        for name in ((plan.name,) if plan.at_most is None else auto_layer_names(plan.name, names))
    )
