"""Compute the template variables of a product's page, with a section for each platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    data_file,
    path_to_root,
    product_folder,
)
from pipeline.site.plots import PLOT_HEIGHT, Plot, plots
from pipeline.site.product_status import (
    AgedFix,
    EndOfLife,
    ShownFailure,
    aged_fixes,
    end_of_life_status,
    order_products,
)
from pipeline.site.site_history import Point, ProductHistory
from pipeline.site.treemap import TREEMAP_HEIGHT as MAP_HEIGHT
from pipeline.site.treemap import LayerArea, treemap

POINTS_SHOWN = 60
"""Runs in a page's table of figures; all are in the JSON file that it links."""


@dataclass(frozen=True, slots=True)
class PackageChangeRow:
    """A package change, and its kind: added, changed or removed."""

    change: PackageChange
    word: str


@dataclass(frozen=True, slots=True)
class InstanceChecks:
    """The checks of one launched instance."""

    name: str
    checks: tuple[CheckFigure, ...]
    failed: int


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

    `id`: the section's anchor. `tag`: the one to pull; `pull` and `verify`: commands. `refused`: the checks are of a
    new image that did not pass, not of the published one. `last`: the point of the last build; `points`: latest first.
    """

    id: str
    variant: str
    product: Product
    failure: ShownFailure | None
    failing: tuple[Point, ...]
    end: EndOfLife | None
    tag: str
    pull: tuple[str, ...]
    verify: tuple[str, ...]
    parent: str
    download: int
    unpacked: int
    changes: tuple[PackageChangeRow, ...]
    missing: tuple[AgedFix, ...]
    instances: tuple[InstanceChecks, ...]
    refused: bool
    areas: tuple[LayerArea, ...]
    packages: tuple[PackageSize, ...]
    documents: tuple[DocumentLink, ...]
    last: Point | None
    points: tuple[Point, ...]
    points_left: int
    plots: tuple[Plot, ...]


def product_values(
    products: Sequence[Product], night: NightlyRun, history: ProductHistory, mirror: str
) -> Mapping[str, object]:
    """Return the variables for the template of a product's page.

    `products`: the same product on its platforms. They depend on the run only as far as it changed the product, so that
    unchanged pages stay the same.
    """
    name = products[0].name
    root = path_to_root(f"{product_folder(name)}/index.html")
    sections = tuple(_section(product, night, history, root, mirror) for product in order_products(tuple(products)))
    return {
        "name": name,
        "root": root,
        "description": next((one.description for one in products if one.description), ""),
        "sections": sections,
        "several": len(sections) > 1,
        "data": f"{root}{data_file(name)}",
        "key": f"{root}{KEY}" if night.key else "",
        "MAP_HEIGHT": round(MAP_HEIGHT),
        "PLOT_HEIGHT": PLOT_HEIGHT,
    }


def _section(product: Product, night: NightlyRun, history: ProductHistory, root: str, mirror: str) -> PlatformSection:
    points = history.of(product)
    run, image = product.run, product.published
    tag = "latest" if "latest" in image.tags else next(iter((*image.tags, image.immutable)), "")
    reference = f"{night.known_as}/{product.name}".lstrip("/")
    return PlatformSection(
        id=f"{product.platform}-{product.arch}".replace(" ", "-"),
        variant=f"{product.platform} {product.arch}".strip(),
        product=product,
        failure=ShownFailure.of((run.failure,) if run.failure else ()),
        failing=_failing(points),
        end=end_of_life_status(product, night.ended),
        tag=tag,
        pull=_pull(product, reference, tag),
        verify=_verify(product, reference, tag, night),
        parent=_parent(product, night, root),
        download=sum(layer.size for layer in image.layers),
        unpacked=sum(layer.tar_size for layer in image.layers),
        changes=tuple(PackageChangeRow(change, _word(change)) for change in image.changes),
        missing=aged_fixes(product, night.ended),
        instances=_instances(product),
        refused=run.failure is not None and not all(check.passed for check in image.checks),
        areas=treemap(image.packages, [layer.name for layer in image.layers]),
        packages=tuple(sorted(image.packages, key=lambda package: (-package.size, package.name))),
        documents=tuple(_document(one, product, reference, root, mirror) for one in image.attached),
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


def _pull(product: Product, reference: str, tag: str) -> tuple[str, ...]:
    if product.published.digest is None:
        return ()
    by_tag = (f"podman pull {reference}:{tag}", f"docker pull {reference}:{tag}") if tag else ()
    return (*by_tag, f"podman pull {reference}@{product.published.digest}")


def _verify(product: Product, reference: str, tag: str, night: NightlyRun) -> tuple[str, ...]:
    if product.published.digest is None:
        return ()
    digest = product.published.digest
    return (
        f"cosign verify --key {KEY} --insecure-ignore-tlog=true {reference}@{digest}",
        f"relbuild verify {night.destination}/{product.name}{f':{tag}' if tag else f'@{digest}'} --key {KEY}",
    )


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
        InstanceChecks(name, checks, sum(not check.passed for check in checks)) for name, checks in grouped.items()
    )


def _document(attached: AttachedDocument, product: Product, reference: str, root: str, mirror: str) -> DocumentLink:
    word = "-".join("".join(char if char.isalnum() else " " for char in attached.name.lower()).split())
    ending = ".json" if attached.media_type.endswith("json") else ""
    file = f"{product.name.replace('/', '-')}-{word or 'document'}{ending}"
    link = blob_link(root, mirror, attached.path)
    command = "" if link else f"oras blob fetch --output {file} {reference}@{attached.digest}"
    return DocumentLink(attached, link, file, command)
