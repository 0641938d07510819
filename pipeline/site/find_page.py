"""Compute the variables of the index page: products, packages and missing fixes by name.

A browser's own search finds a name on it; it needs no script. It depends on what is published alone, so that a night in
which nothing changed does not write it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import NightlyRun, Product
from pipeline.site.page_paths import product_folder

INDEX_PACKAGES_LIMIT = 5000
"""Packages on the index page: a catalogue of a hundred products has about a thousand."""


@dataclass(frozen=True, slots=True)
class IndexLink:
    """A link to a product's page.

    `variant` names its platform where it has several, else it is "".
    """

    name: str
    variant: str
    link: str


@dataclass(frozen=True, slots=True)
class PackageVersion:
    """A version of a package, and the products that have it."""

    evr: str
    products: tuple[IndexLink, ...]


@dataclass(frozen=True, slots=True)
class PackageIndexEntry:
    """A package with its versions."""

    name: str
    versions: tuple[PackageVersion, ...]


@dataclass(frozen=True, slots=True)
class PackageIndexGroup:
    """The packages whose names begin with `letter`; `id` is the group's anchor."""

    id: str
    letter: str
    packages: tuple[PackageIndexEntry, ...]


def find_values(night: NightlyRun) -> Mapping[str, object]:
    """Return the variables for the template of the index page."""
    names = [product.name for product in night.products]
    links = {id(one): _link(one, several=names.count(one.name) > 1) for one in night.products}
    found: dict[str, dict[str, list[IndexLink]]] = {}
    for product in sorted(night.products, key=lambda one: (one.name, one.platform, one.arch)):
        for package in product.published.packages:
            found.setdefault(package.name, {}).setdefault(package.evr, []).append(links[id(product)])
    packages = [
        PackageIndexEntry(
            name,
            tuple(PackageVersion(evr, tuple(dict.fromkeys(found[name][evr]))) for evr in sorted(found[name])),
        )
        for name in sorted(found, key=str.lower)
    ]
    return {
        "root": "",
        "products": tuple(
            (links[id(one)], one.description) for one in sorted(night.products, key=lambda one: (one.name, one.arch))
        ),
        "groups": _groups(packages[:INDEX_PACKAGES_LIMIT]),
        "packages_left": max(0, len(packages) - INDEX_PACKAGES_LIMIT),
        "fixes": _fixes(night.products, links),
    }


def _link(product: Product, *, several: bool) -> IndexLink:
    variant = f"{product.platform} {product.arch}" if several else ""
    return IndexLink(product.name, variant, f"{product_folder(product.name)}/index.html")


def _groups(packages: Sequence[PackageIndexEntry]) -> tuple[PackageIndexGroup, ...]:
    def letter(entry: PackageIndexEntry) -> str:
        first = entry.name[:1].upper()
        return first if "A" <= first <= "Z" else "0–9"

    grouped: dict[str, list[PackageIndexEntry]] = {}
    for key, entries in groupby(packages, letter):
        grouped.setdefault(key, []).extend(entries)
    return tuple(
        PackageIndexGroup(f"packages-{key.lower().replace('–', '-')}", key, tuple(entries))
        for key, entries in grouped.items()
    )


def _fixes(
    products: Sequence[Product], links: Mapping[int, IndexLink]
) -> tuple[tuple[str, tuple[str, ...], str, tuple[IndexLink, ...]], ...]:
    """Return (advisory, CVEs, package, products that lack it) of each missing fix, by advisory."""
    found: dict[tuple[str, tuple[str, ...], str], list[IndexLink]] = {}
    for product in products:
        for fix in product.published.missing:
            found.setdefault((fix.advisory, fix.cves, fix.package), []).append(links[id(product)])
    return tuple((*key, tuple(dict.fromkeys(found[key]))) for key in sorted(found))
