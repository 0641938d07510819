"""Compute the treemap of an image's packages by layer: rectangles in proportion to sizes.

Squarified treemaps (Bruls, Huizing, van Wijk, 2000).

A map is `TREEMAP_WIDTH` × `TREEMAP_HEIGHT` pixels on a wide screen. Its x coordinates are in per cent, so that it fits
any screen while its texts keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import squarify

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.published_image import PackageSize

TREEMAP_WIDTH = 1040.0
TREEMAP_HEIGHT = 440.0
NARROW_WIDTH = 330.0
"""Pixels of the map's width on a phone."""

_HEADING = 18.0
"""Pixels of the strip with a layer's name."""
_SMALLEST = 60.0
"""Square pixels below which packages of a layer are combined."""
_LETTER = 6.8
"""Average pixels of a letter in the map's texts."""
HUES = 6


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Cell:
    """The area of a package, or of several small ones combined.

    `row` is the place of the package, or of the largest of the combined ones, among all packages by size, from 1.
    `fits`: on which screens `label` fits: any (`all`), wide ones (`wide`), or none (""). `x` and `width` are in per
    cent.
    """

    label: str
    size: int
    place: Rectangle
    fits: str
    row: int

    @property
    def x(self) -> str:
        return _percent(self.place.x)

    @property
    def width(self) -> str:
        return _percent(self.place.width)


@dataclass(frozen=True, slots=True)
class LayerArea:
    """The area of a layer, with the cells of its packages. `hue`: 0 to HUES - 1."""

    name: str
    size: int
    place: Rectangle
    fits: str
    hue: int
    cells: tuple[Cell, ...]

    @property
    def x(self) -> str:
        return _percent(self.place.x)

    @property
    def width(self) -> str:
        return _percent(self.place.width)


def squarified(sizes: Sequence[int], place: Rectangle) -> tuple[Rectangle, ...]:
    """Divide `place` into rectangles with areas in proportion to `sizes`, in their order.

    Sizes must be above 0; largest first gives the best shapes.
    """
    scaled = squarify.normalize_sizes(sizes, place.width, place.height)
    return tuple(
        Rectangle(one["x"], one["y"], one["dx"], one["dy"])
        for one in squarify.squarify(scaled, place.x, place.y, place.width, place.height)
    )


def treemap(packages: Sequence[PackageSize], layers: Sequence[str]) -> tuple[LayerArea, ...]:
    """Return the areas of the layers with their packages, without empty packages.

    `layers`: names of the image's layers, lowest first, by which hues are assigned.
    """
    rows = {id(package): row for row, package in enumerate(by_size(packages), 1)}
    held: dict[str, list[PackageSize]] = {}
    for package in packages:
        if package.size > 0:
            held.setdefault(package.layer, []).append(package)
    order = sorted(held, key=lambda name: (-sum(package.size for package in held[name]), name))
    hues = {name: index % HUES for index, name in enumerate(dict.fromkeys([*layers, *sorted(held)]))}
    sizes = [sum(package.size for package in held[name]) for name in order]
    places = squarified(sizes, Rectangle(0, 0, TREEMAP_WIDTH, TREEMAP_HEIGHT))
    return tuple(
        _layer((name, held[name]), size, place, hues[name], rows)
        for name, size, place in zip(order, sizes, places, strict=True)
    )


def by_size(packages: Sequence[PackageSize]) -> tuple[PackageSize, ...]:
    """Sort packages, the largest first."""
    return tuple(sorted(packages, key=lambda package: (-package.size, package.name)))


def _layer(
    held: tuple[str, Sequence[PackageSize]], size: int, place: Rectangle, hue: int, rows: Mapping[int, int]
) -> LayerArea:
    name, packages = held
    headed = place.height > 3 * _HEADING and place.width > 40
    inner = Rectangle(place.x, place.y + _HEADING, place.width, place.height - _HEADING) if headed else place
    ordered = by_size(packages)
    scale = inner.area / size
    named = [
        (package.name, package.size, rows[id(package)]) for package in ordered if package.size * scale >= _SMALLEST
    ]
    small = ordered[len(named) :]
    if small:
        together = sum(package.size for package in small)
        label = small[0].name if len(small) == 1 else f"{len(small)} smaller packages"
        named.append((label, together, rows[id(small[0])]))
    places = squarified([one for _, one, _ in named], inner)
    cells = tuple(
        Cell(label, one, where, _fitting(label, where), row)
        for (label, one, row), where in zip(named, places, strict=True)
    )
    return LayerArea(name, size, place, _fitting(name, place) if headed else "", hue, cells)


def _fitting(label: str, place: Rectangle) -> str:
    wanted = len(label) * _LETTER + 8
    if place.height < 16 or wanted > place.width:
        return ""
    return "all" if wanted <= place.width * NARROW_WIDTH / TREEMAP_WIDTH else "wide"


def _percent(pixels: float) -> str:
    return f"{pixels / TREEMAP_WIDTH * 100:.3f}%"
