"""Compute the template variables of a page that compares an image with the one before it.

Both are known from the records of the nights, so that nothing is read from the mirror again: packages, their sizes,
layers. What differs in files is for `relbuild diff`, whose command the page shows.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import read_json
from pipeline.model.night_record import NightlyRun, Product
from pipeline.model.published_image import LayerSize, PackageSize, PublishedImage, package_versions
from pipeline.site.page_paths import path_to_root, product_folder
from pipeline.site.site_history import NightSummary
from pipeline.site.text_format import size_text

_NIGHTS_READ = 5
"""Earlier nights in which the image before is looked for: it is in the last one that had the product."""
_NIGHT_LIMIT = 64 << 20
"""Bytes of a night's record: a hundred products take about two million."""


@dataclass(frozen=True, slots=True)
class ComparedPackage:
    """A package that differs.

    `how`: added, changed or removed. `before` and `after`: versions, or "". `growth`: of its files, with a sign.
    """

    name: str
    how: str
    before: str
    after: str
    growth: str


@dataclass(frozen=True, slots=True)
class LayerPair:
    """A layer by name, before and after; None where there is none. `shared`: it is the same."""

    name: str
    before: LayerSize | None
    after: LayerSize | None

    @property
    def shared(self) -> bool:
        return self.before is not None and self.after is not None and self.before.digest == self.after.digest


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """A figure of both images, as texts, and their difference with a sign."""

    name: str
    before: str
    after: str
    growth: str


def image_before(product: Product, folder: Path, nights: Sequence[NightSummary]) -> Product | None:
    """Return the product with the image that a newly built one replaced; None if it is unknown.

    `folder`: the site's. `nights`: those that it keeps, oldest first.
    """
    wanted = product.published.previous
    if wanted is None or wanted == product.published.digest:
        return None
    for night in reversed(nights[-_NIGHTS_READ:]):
        found = _recorded(folder / "nights" / f"{night.stamp}.json", product, wanted)
        if found is not None:
            return found
    return None


def compare_values(before: Product, after: Product, night: NightlyRun) -> Mapping[str, object]:
    """Return the variables for the template of the page that compares two images of a product."""
    old, new = before.published, after.published
    known = {layer.digest for layer in old.layers}
    mirror = f"{night.destination}/{after.name}"
    return {
        "root": path_to_root(f"{product_folder(after.name)}/index.html"),
        "product": after,
        "variant": f"{after.platform} {after.arch}".strip(),
        "old": old,
        "new": new,
        "figures": _figures(old, new),
        "download": sum(layer.size for layer in new.layers if layer.digest not in known),
        "packages": _packages(old.packages, new.packages),
        "layers": _layers(old.layers, new.layers),
        "command": f"relbuild diff {shlex.quote(f'{mirror}@{old.digest}')} {shlex.quote(f'{mirror}@{new.digest}')}",
    }


def _recorded(path: Path, product: Product, wanted: Digest) -> Product | None:
    """Return a product as a night recorded it, if its image was `wanted`."""
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(_NIGHT_LIMIT))
        key = (product.name, product.platform, product.arch)
        for one in raw["products"]:
            if (one["name"], one["platform"], one["arch"]) == key and one["digest"] == str(wanted):
                return read_json(Product, one)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # A damaged record of the past costs a page, not the night.
    return None


def _figures(old: PublishedImage, new: PublishedImage) -> tuple[ComparedFigure, ...]:
    sizes = (
        ("To download", sum(one.size for one in old.layers), sum(one.size for one in new.layers)),
        ("Unpacked", sum(one.tar_size for one in old.layers), sum(one.tar_size for one in new.layers)),
    )
    found = [ComparedFigure(name, size_text(was), size_text(now), _growth(was, now)) for name, was, now in sizes]
    count, counted = len(old.packages), len(new.packages)
    more = f"{counted - count:+}" if counted != count else "±0"
    return (*found, ComparedFigure("Packages", str(count), str(counted), more))


def _packages(old: Sequence[PackageSize], new: Sequence[PackageSize]) -> tuple[ComparedPackage, ...]:
    before, after = (package_versions([(one.name, one.evr) for one in packages]) for packages in (old, new))
    sizes: list[dict[str, int]] = [{}, {}]
    for side, packages in zip(sizes, (old, new), strict=True):
        for one in packages:
            side[one.name] = side.get(one.name, 0) + one.size
    return tuple(
        ComparedPackage(
            name,
            "added" if name not in before else "changed" if name in after else "removed",
            before.get(name, ""),
            after.get(name, ""),
            _growth(sizes[0].get(name, 0), sizes[1].get(name, 0)),
        )
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _layers(old: Sequence[LayerSize], new: Sequence[LayerSize]) -> tuple[LayerPair, ...]:
    before, after = ({layer.name: layer for layer in layers} for layers in (old, new))
    return tuple(LayerPair(name, before.get(name), after.get(name)) for name in dict.fromkeys((*after, *before)))


def _growth(before: int, after: int) -> str:
    return f"{'−' if after < before else '+'}{size_text(abs(after - before))}" if after != before else "±0"
