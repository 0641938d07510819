"""Compute the template variables of a product's page, with a section for each platform."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import NightlyRun, Outcome, Product
from pipeline.model.published_image import (
    AttachedDocument,
    CheckFigure,
    PackageChange,
    PackageSize,
)
from pipeline.site.page_paths import (
    KEY,
    blob_link,
    compare_file,
    data_file,
    path_to_root,
    product_folder,
    section_id,
)
from pipeline.site.plots import PLOT_HEIGHT, Plot, plots
from pipeline.site.product_status import (
    AgedFix,
    EndOfLife,
    ShownFailure,
    aged_fixes,
    end_of_life_status,
    has_no_address,
    order_products,
)
from pipeline.site.site_history import POINTS_SHOWN, Point, ProductHistory
from pipeline.site.text_format import NUMBER
from pipeline.site.treemap import TREEMAP_HEIGHT as MAP_HEIGHT
from pipeline.site.treemap import LayerArea, by_size, treemap
from pipeline.smoke.log_lines import SKIPPED

_SERVED_AT = "127.0.0.1:8080"
"""The address at which `relbuild serve` listens if no other is given."""


@dataclass(frozen=True, slots=True)
class PackageChangeRow:
    """A package change, and its kind: added, changed or removed."""

    change: PackageChange
    word: str


@dataclass(frozen=True, slots=True)
class InstanceChecks:
    """The checks of one launched instance.

    `skipped` of those that did not pass were not asked, after another failure.
    """

    name: str
    checks: tuple[CheckFigure, ...]
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A check that failed in the same way in some instances. `figure`: of the first of them."""

    figure: CheckFigure
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DocumentLink:
    """An attached document of an image: its link, or else the command that fetches it to `file`."""

    attached: AttachedDocument
    link: str
    file: str
    command: str


@dataclass(frozen=True, slots=True)
class PlatformSection:
    """A product on one platform.

    `id`: the section's anchor. `tag`: the one to pull; `pull` and `verify`: commands; `unnamed`: no
    address to pull from is known. `refused`: the checks are of a
    new image that did not pass, not of the published one. `last`: the point of the last build; `points`: latest first;
    `compared`: points of builds with the page that compares the image with the one before, latest first.
    """

    id: str
    variant: str
    product: Product
    failure: ShownFailure | None
    failing: tuple[Point, ...]
    end: EndOfLife | None
    tag: str
    unnamed: bool
    pull: tuple[str, ...]
    verify: tuple[str, ...]
    parent: str
    download: int
    unpacked: int
    changes: tuple[PackageChangeRow, ...]
    missing: tuple[AgedFix, ...]
    failed_checks: tuple[FailedCheck, ...]
    instances: tuple[InstanceChecks, ...]
    refused: bool
    areas: tuple[LayerArea, ...]
    packages: tuple[PackageSize, ...]
    documents: tuple[DocumentLink, ...]
    last: Point | None
    points: tuple[Point, ...]
    points_left: int
    plots: tuple[Plot, ...]
    compared: tuple[tuple[Point, str], ...] = ()


def product_values(
    products: Sequence[Product], night: NightlyRun, history: ProductHistory, mirror: str, compared: frozenset[str]
) -> Mapping[str, object]:
    """Return the variables for the template of a product's page.

    `products`: the same product on its platforms. `compared`: names of the pages beside it that compare two images.
    The variables depend on the run only as far as it changed the product, so that unchanged pages stay the same.
    """
    name = products[0].name
    root = path_to_root(f"{product_folder(name)}/index.html")
    sections = tuple(
        replace(made, compared=_compared(product, made.id, history.of(product), compared))
        for product in order_products(tuple(products))
        for made in [_section(product, night, history, root, mirror)]
    )
    return {
        "name": name,
        "root": root,
        "description": next((one.description for one in products if one.description), ""),
        "sections": sections,
        "several": len(sections) > 1,
        "data": f"{root}{data_file(name)}",
        "key": f"{root}{KEY}" if night.key else "",
        "key_file": KEY,
        "MAP_HEIGHT": round(MAP_HEIGHT),
        "PLOT_HEIGHT": PLOT_HEIGHT,
    }


def _section(product: Product, night: NightlyRun, history: ProductHistory, root: str, mirror: str) -> PlatformSection:
    points = history.of(product)
    run, image = product.run, product.published
    tag = "latest" if "latest" in image.tags else next(iter((*image.tags, image.immutable)), "")
    return PlatformSection(
        id=section_id(product.platform, product.arch),
        variant=f"{product.platform} {product.arch}".strip(),
        product=product,
        failure=ShownFailure.of((run.failure,) if run.failure else ()),
        failing=_failing(points),
        end=end_of_life_status(product, night.ended),
        tag=tag,
        unnamed=has_no_address(night),
        pull=_pull(product, night, tag),
        verify=_verify(product, night, tag),
        parent=_parent(product, night, root),
        download=sum(layer.size for layer in image.layers),
        unpacked=sum(layer.tar_size for layer in image.layers),
        changes=tuple(PackageChangeRow(change, _word(change)) for change in image.changes),
        missing=aged_fixes(product, night.ended),
        failed_checks=_failed_checks(product),
        instances=_instances(product),
        refused=run.failure is not None and not all(check.passed for check in image.checks),
        areas=treemap(image.packages, [layer.name for layer in image.layers]),
        packages=by_size(image.packages),
        documents=tuple(_document(one, product, night, root, mirror) for one in image.attached),
        last=next((point for point in reversed(points) if point.outcome is Outcome.BUILT), None),
        points=tuple(reversed(points[-POINTS_SHOWN:])),
        points_left=max(0, len(points) - POINTS_SHOWN),
        plots=plots(points),
    )


def _failing(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the latest runs in a row that failed or were blocked, oldest first."""
    count = 0
    while count < len(points) and points[-1 - count].outcome in (Outcome.FAILED, Outcome.BLOCKED):
        count += 1
    return tuple(points[len(points) - count :])


def _pull(product: Product, night: NightlyRun, tag: str) -> tuple[str, ...]:
    """Return the commands that pull an image.

    It is pulled from its public address, or else from `relbuild serve` on the mirror's machine.
    """
    digest = product.published.digest
    if digest is None:
        return ()
    if has_no_address(night):
        kind, colon, path = night.destination.partition(":")
        if kind != "dir" or not colon:
            return ()
        name = f"{_SERVED_AT}/{product.name}"
        return (
            f"relbuild serve {shlex.quote(path)}",
            f"podman pull --tls-verify=false {name}{f':{tag}' if tag else f'@{digest}'}",
        )
    reference = _reference(product, night)
    by_tag = (f"podman pull {reference}:{tag}", f"docker pull {reference}:{tag}") if tag else ()
    return (*by_tag, f"podman pull {reference}@{digest}")


def _verify(product: Product, night: NightlyRun, tag: str) -> tuple[str, ...]:
    digest = product.published.digest
    if digest is None:
        return ()
    there = shlex.quote(f"{night.destination}/{product.name}{f':{tag}' if tag else f'@{digest}'}")
    by_cosign = f"cosign verify --key {KEY} --insecure-ignore-tlog=true {_reference(product, night)}@{digest}"
    return (*(() if has_no_address(night) else (by_cosign,)), f"relbuild verify {there} --key {KEY}")


def _reference(product: Product, night: NightlyRun) -> str:
    return f"{night.known_as}/{product.name}"


def _parent(product: Product, night: NightlyRun, root: str) -> str:
    """Return the link to the parent's page; "" if it has none."""
    known = product.parent in {other.name for other in night.products}
    return f"{root}{product_folder(product.parent)}/index.html" if known else ""


def _word(change: PackageChange) -> str:
    if not change.before:
        return "added"
    return "changed" if change.after else "removed"


def _instances(product: Product) -> tuple[InstanceChecks, ...]:
    names = dict.fromkeys(check.instance for check in product.published.checks)
    grouped = {name: tuple(check for check in product.published.checks if check.instance == name) for name in names}
    return tuple(
        InstanceChecks(
            name,
            checks,
            sum(not check.passed for check in checks),
            sum(not check.passed and check.detail.startswith(SKIPPED) for check in checks),
        )
        for name, checks in grouped.items()
    )


def _compared(
    product: Product, section: str, points: Sequence[Point], pages: frozenset[str]
) -> tuple[tuple[Point, str], ...]:
    found: dict[str, Point] = {}
    for point in points[-POINTS_SHOWN:]:
        if point.digest is not None and point.outcome is Outcome.BUILT:
            name = compare_file(product.name, section, point.digest).rpartition("/")[2]
            if name in pages:
                found[name] = point
    return tuple((point, name) for name, point in reversed(found.items()))


def _failed_checks(product: Product) -> tuple[FailedCheck, ...]:
    """Return the checks that failed, without those that another failure skipped."""
    found: dict[tuple[str, str], list[CheckFigure]] = {}
    for check in product.published.checks:
        if not check.passed and not check.detail.startswith(SKIPPED):
            key = check.name, NUMBER.sub("#", check.detail.replace(check.instance, ""))
            found.setdefault(key, []).append(check)
    return tuple(FailedCheck(checks[0], tuple(one.instance for one in checks)) for checks in found.values())


def _document(attached: AttachedDocument, product: Product, night: NightlyRun, root: str, mirror: str) -> DocumentLink:
    word = "-".join("".join(char if char.isalnum() else " " for char in attached.name.lower()).split())
    ending = ".json" if attached.media_type.endswith("json") else ""
    file = f"{product.name.replace('/', '-')}-{word or 'document'}{ending}"
    link = blob_link(root, mirror, attached.path)
    fetched = f"oras blob fetch --output {file} {_reference(product, night)}@{attached.digest}"
    command = "" if link or has_no_address(night) else fetched
    return DocumentLink(attached, link, file, command)
