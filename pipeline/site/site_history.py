"""Data classes of a site's history (products' figures, last runs); update, encode, read.

    data/NAME.json    a product's figures (`ProductHistory`), with a point for each run that measured something
    data/site.json    summaries of the last runs, and the digest of each product page's inputs (`SiteState`)

Both are bounded. A damaged file is renamed (`.damaged`) and begun anew: a page without its past is better than none.
For one that a newer relbuild wrote, the site is not written.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import read_json, refuse_newer, to_json
from pipeline.model.night_record import NightlyRun, Outcome, Product
from pipeline.site.markup import json_bytes
from pipeline.site.text_format import stamp_text

POINTS_LIMIT = 400
"""Points of one product on one platform: more than a year of nightly runs."""
POINTS_SHOWN = 60
"""Runs in a page's table of figures; all are in the JSON file that it links."""
NIGHTS_LIMIT = 90
"""Past runs that are kept, with a page each: three months."""
FIGURES_LIMIT = 16 << 20
"""Bytes of a file of figures: 400 points on twenty platforms need four million."""

HISTORY_FORMAT = 1
STATE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of a product that one run measured.

    `at`: when the run began (milliseconds since the epoch), which identifies it. `took`: milliseconds of the build, or
    of the test where nothing was built. Sizes are bytes, `cpu_time` microseconds; None where not measured.
    """

    at: int
    outcome: Outcome
    version: str
    digest: Digest | None
    download: int | None
    unpacked: int | None
    packages: int | None
    took: int
    steps: tuple[tuple[str, int], ...]
    peak_memory: int | None
    cpu_time: int | None
    peak_pids: int | None
    ready_after: int | None
    checks: int
    uploaded: int
    moved: tuple[str, ...]
    worker: str
    failure: str


@dataclass(frozen=True, slots=True)
class FigureSeries:
    """The points of one platform and architecture, oldest first."""

    platform: str
    arch: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class ProductHistory:
    """The series of one product."""

    format: int
    series: tuple[FigureSeries, ...]

    def of(self, product: Product) -> tuple[Point, ...]:
        """Return the points of a product on its platform."""
        return next((one.points for one in self.series if _is_of(one, product)), ())

    def with_point(self, product: Product, night: NightlyRun) -> ProductHistory:
        """Return the history with this run's point, which replaces an earlier one of the same run."""
        point = _measured(product, night)
        if point is None:
            return self
        points = (*(one for one in self.of(product) if one.at != point.at), point)
        points = tuple(sorted(points, key=lambda one: one.at))[-POINTS_LIMIT:]
        others = [one for one in self.series if not _is_of(one, product)]
        series = sorted(
            [*others, FigureSeries(product.platform, product.arch, points)], key=lambda one: (one.platform, one.arch)
        )
        return ProductHistory(self.format, tuple(series))


@dataclass(frozen=True, slots=True)
class ProductNews:
    """A run's news of one product. `said`: the failure's message, or the new version."""

    name: str
    platform: str
    arch: str
    outcome: Outcome
    said: str


@dataclass(frozen=True, slots=True)
class NightSummary:
    """Summary of a run.

    `results`: (`product_key`, outcome) of each product; `items`: news for the feed; `name`: base name of its files,
    unique also when another run began in the same second.
    """

    began: int
    ended: int
    exit_code: int
    headline: str
    exceeded: int
    results: tuple[tuple[str, str], ...]
    items: tuple[ProductNews, ...]
    run: str = ""
    name: str = ""

    @property
    def stamp(self) -> str:
        """The base name of the run's files."""
        return self.name or stamp_text(self.began)

    def count(self, outcome: Outcome) -> int:
        """Return the number of products with an outcome."""
        return sum(result == outcome for _, result in self.results)

    @property
    def outcomes(self) -> Mapping[str, str]:
        """`product_key` → outcome."""
        return dict(self.results)


@dataclass(frozen=True, slots=True)
class SiteState:
    """The runs that a site keeps, oldest first, and (product, digest of its page's inputs)."""

    format: int
    nights: tuple[NightSummary, ...]
    pages: tuple[tuple[str, Digest], ...]


NO_HISTORY = ProductHistory(HISTORY_FORMAT, ())
NO_STATE = SiteState(STATE_FORMAT, (), ())

SiteDocument = TypeVar("SiteDocument", ProductHistory, SiteState)


def product_key(product: Product) -> str:
    """Return the key of a product on a platform, unique within a night."""
    return f"{product.name} {product.platform} {product.arch}"


def summarize_night(night: NightlyRun, headline: str) -> NightSummary:
    """Summarize a run."""
    return NightSummary(
        began=night.began,
        ended=night.ended,
        exit_code=night.exit_code,
        headline=headline,
        exceeded=len(night.exceeded),
        run=night.run,
        results=tuple((product_key(product), str(product.run.outcome)) for product in night.products),
        items=tuple(
            ProductNews(product.name, product.platform, product.arch, product.run.outcome, _said(product))
            for product in night.products
            if product.run.outcome in (Outcome.FAILED, Outcome.BLOCKED, Outcome.BUILT)
        ),
    )


def with_unique_start(night: NightlyRun, nights: Sequence[NightSummary]) -> NightlyRun:
    """Return the run, its start moved by milliseconds until no other run has the same.

    Figures are identified by the start.
    """
    taken = {one.began for one in nights if one.run != night.run}
    while night.began in taken:
        night = replace(night, began=night.began + 1)
    return night


def add_night(
    nights: tuple[NightSummary, ...], summary: NightSummary
) -> tuple[NightSummary, tuple[NightSummary, ...], tuple[NightSummary, ...]]:
    """Add a run to those that are kept, replacing an earlier summary of the same run.

    Returns the summary with its unique name, the runs that are kept, and those that are dropped.
    """
    others = [one for one in nights if (one.run, one.began) != (summary.run, summary.began)]
    stamp, taken = stamp_text(summary.began), {one.stamp for one in others}
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    summary = replace(summary, name=next(name for name in names if name not in taken))
    every = sorted([*others, summary], key=lambda one: one.began)
    return summary, tuple(every[-NIGHTS_LIMIT:]), tuple(every[:-NIGHTS_LIMIT])


def site_document_bytes(value: ProductHistory | SiteState) -> bytes:
    """Encode a history or a state as JSON, for `read_site_document`."""
    return json_bytes(to_json(value))


def read_site_document(path: Path, empty: SiteDocument) -> SiteDocument:
    """Read a history or state from a file that this or an older release wrote.

    Returns `empty` if it is missing, or damaged: then it is renamed. Raises VerificationError `format-newer`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FIGURES_LIMIT + 1)
    except FileNotFoundError:
        return empty
    try:
        if len(data) > FIGURES_LIMIT:
            raise ValueError(f"{path} is too large")
        raw = json.loads(data)
        if not isinstance(raw, dict):
            raise ValueError(f"'{path}' is not a JSON object")
        refuse_newer(str(path), raw.get("format"), empty.format)
        value = read_json(type(empty), raw)
    except (ValueError, RecursionError):
        path.replace(path.with_name(f"{path.name}.damaged"))
        return empty
    return value


def _is_of(series: FigureSeries, product: Product) -> bool:
    return (series.platform, series.arch) == (product.platform, product.arch)


def _measured(product: Product, night: NightlyRun) -> Point | None:
    """Return the point of a product in one run; None if it was unchanged.

    For a product that failed, without figures of the image: those are of the published one.
    """
    if product.run.outcome is Outcome.UNCHANGED:
        return None
    run, image = product.run, product.published
    new = run.outcome in (Outcome.BUILT, Outcome.RETESTED)
    return Point(
        at=night.began,
        outcome=run.outcome,
        version=image.version,
        digest=image.digest if new else None,
        download=sum(layer.size for layer in image.layers) if new and image.layers else None,
        unpacked=sum(layer.tar_size for layer in image.layers) if new and image.layers else None,
        packages=len(image.packages) if new and image.packages else None,
        took=image.build_took if run.outcome is Outcome.BUILT else run.took,
        steps=run.steps,
        peak_memory=image.resources.peak_memory if new else None,
        cpu_time=image.resources.cpu_time if new else None,
        peak_pids=image.resources.peak_pids if new else None,
        ready_after=image.resources.ready_after if new else None,
        checks=len(image.checks) if new else 0,
        uploaded=run.uploaded,
        moved=run.moved,
        worker=run.worker,
        failure=run.failure.code if run.failure else "",
    )


def _said(product: Product) -> str:
    if product.run.failure is not None:
        return product.run.failure.message
    return product.published.version if product.run.outcome is Outcome.BUILT else product.run.why
