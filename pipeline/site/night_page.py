"""Compute the template variables of a nightly run's page: table, failures, fixes, timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import (
    NightlyRun,
    Outcome,
    Product,
)
from pipeline.model.published_image import MissingFix
from pipeline.site.day_strip import STRIP_HEIGHT, day_strip
from pipeline.site.night_path import SLACK, concurrency, night_path
from pipeline.site.page_paths import path_to_root, product_folder
from pipeline.site.product_status import (
    OUTCOME_ORDER,
    AgedFix,
    EndOfLife,
    ShownFailure,
    aged_fixes,
    end_of_life_status,
    has_no_address,
    headline,
    order_products,
    severity_order,
)
from pipeline.site.site_history import NIGHTS_LIMIT, NightSummary, product_key
from pipeline.site.text_format import NUMBER, clock_text, count_text

FIXES_SHOWN = 100
"""Missing fixes in the run's table; all are on the products' pages."""
_NIGHTS_SHOWN = 7
"""Last nights whose rows are shown at once; earlier ones are folded."""
_STRIP = 14
"""Nights in the strip of a product's past outcomes."""


@dataclass(frozen=True, slots=True)
class PastOutcome:
    """A product's outcome in one of the last runs; "" if it was not part of it."""

    began: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Row:
    """A product's row. `variant` names its platform where it has several, else it is ""."""

    product: Product
    variant: str
    link: str
    size: int | None
    missing: tuple[AgedFix, ...]
    end: EndOfLife | None
    strip: tuple[PastOutcome, ...]

    @property
    def strip_words(self) -> str:
        """The strip in words, latest night first, with equal outcomes counted."""
        told = [tick.outcome for tick in reversed(self.strip) if tick.outcome]
        counted = [f"{len(list(same))} × {outcome}" for outcome, same in groupby(told)]
        return f"{count_text(len(told), 'night')}, latest first: {', '.join(counted)}"

    @property
    def worst(self) -> str:
        """The severity of the worst missing fix; "" if none is missing."""
        return self.missing[0].severity if self.missing else ""


@dataclass(frozen=True, slots=True)
class FailedRows:
    """Products that failed or are blocked in the same way, and the failure that they share."""

    rows: tuple[Row, ...]
    shown: ShownFailure | None


@dataclass(frozen=True, slots=True)
class FixGroup:
    """A missing fix in one package, and the products that lack it."""

    fix: MissingFix
    severity: str
    age: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A product's bar in the timeline, and its steps, in per cent of the run's duration."""

    row: Row
    x: str
    width: str
    label_x: str
    anchor: str
    steps: tuple[tuple[str, str, str, int], ...]
    """Name, x, width, duration."""


def night_values(night: NightlyRun, nights: Sequence[NightSummary], name: str) -> Mapping[str, object]:
    """Return the variables for the template of a run's page.

    `name`: the page's path below the site's root.

    `nights`: the runs that the site keeps, oldest first.
    """
    root = path_to_root(name)
    names = Counter(product.name for product in night.products)
    rows = tuple(
        _row(product, nights, root, night.ended, names[product.name] > 1) for product in order_products(night.products)
    )
    fixes = _fixes(rows)
    return {
        "night": night,
        "root": root,
        "latest": not root,
        "unnamed": has_no_address(night),
        "own_json": f"{name.removesuffix('.html')}.json",
        "headline": headline(night),
        "counts": tuple((outcome, night.count(outcome)) for outcome in OUTCOME_ORDER),
        "rows": rows,
        "lacking": sum(bool(row.missing) for row in rows),
        "troubles": _troubles(rows),
        "ends": tuple(row for row in rows if row.end and row.end.state != "far"),
        "unread": tuple(state for state in night.repositories if state.problem),
        "fixes": fixes[:FIXES_SHOWN],
        "fixes_left": max(0, len(fixes) - FIXES_SHOWN),
        "bars": _bars(rows, night),
        "path": night_path(night),
        "path_slack": SLACK,
        "concurrency": concurrency(night.products, night.ended - night.began),
        "axis": (
            ("0", "start", clock_text(night.began)),
            ("50%", "middle", clock_text((night.began + night.ended) // 2)),
            ("100%", "end", clock_text(night.ended)),
        ),
        "nights_kept": NIGHTS_LIMIT,
        # A run's own page is not updated, and must not link to runs that are removed later.
        "strip": None if root else day_strip(nights, night.began),
        "STRIP_HEIGHT": STRIP_HEIGHT,
        "nights": () if root else tuple(reversed(nights))[:_NIGHTS_SHOWN],
        "nights_before": () if root else tuple(reversed(nights))[_NIGHTS_SHOWN:],
    }


def _row(product: Product, nights: Sequence[NightSummary], root: str, now: int, several: bool) -> Row:
    key = product_key(product)
    return Row(
        product=product,
        variant=f"{product.platform} {product.arch}" if several else "",
        link=f"{root}{product_folder(product.name)}/index.html",
        size=sum(layer.size for layer in product.published.layers) if product.published.layers else None,
        missing=aged_fixes(product, now),
        end=end_of_life_status(product, now),
        strip=tuple(PastOutcome(summary.began, summary.outcomes.get(key, "")) for summary in nights[-_STRIP:]),
    )


def _troubles(rows: Sequence[Row]) -> tuple[FailedRows, ...]:
    """Group the products that failed or are blocked by what they have in common."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        run = row.product.run
        if run.outcome in (Outcome.FAILED, Outcome.BLOCKED):
            failure = run.failure
            said = failure.message if failure else run.why
            key = (
                NUMBER.sub("#", said.replace(row.product.name, "")),
                NUMBER.sub("#", failure.cause if failure else ""),
            )
            groups.setdefault((run.outcome, failure and (failure.stage, failure.code), *key), []).append(row)
    return tuple(
        FailedRows(tuple(group), ShownFailure.of([row.product.run.failure for row in group if row.product.run.failure]))
        for group in groups.values()
    )


def _fixes(rows: Sequence[Row]) -> list[FixGroup]:
    groups: dict[tuple[str, str, str, str], list[tuple[AgedFix, Row]]] = {}
    for row in rows:
        for one in row.missing:
            key = one.fix.advisory, one.fix.package, one.fix.has, one.fix.fixed_in
            groups.setdefault(key, []).append((one, row))
    made = [
        FixGroup(found[0][0].fix, found[0][0].severity, found[0][0].age, tuple(dict.fromkeys(row for _, row in found)))
        for found in groups.values()
    ]
    return sorted(made, key=lambda one: (severity_order(one.fix.severity), -one.age, one.fix.advisory, one.fix.package))


def _bars(rows: Sequence[Row], night: NightlyRun) -> tuple[Bar, ...]:
    whole = max(1, night.ended - night.began)

    def percent(milliseconds: int) -> str:
        return f"{min(1.0, max(0.0, milliseconds / whole)) * 100:.2f}%"

    bars = []
    worked = (row for row in rows if row.product.run.took > 0 and row.product.run.began >= night.began)
    for row in sorted(worked, key=lambda one: (one.product.run.began, one.product.name)):
        at = row.product.run.began - night.began
        steps = []
        for step, took in row.product.run.steps:
            steps.append((step, percent(at), percent(took), took))
            at += took
        start = row.product.run.began - night.began
        # The name is above the bar, aligned to its start or its end, whichever has more room.
        end = start + row.product.run.took
        early = whole - start >= end
        label = percent(start if early else end)
        width = percent(max(row.product.run.took, whole // 250))
        bars.append(Bar(row, percent(start), width, label, "start" if early else "end", tuple(steps)))
    return tuple(bars)
