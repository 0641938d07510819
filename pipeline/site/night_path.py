"""The critical path of a nightly run: the products that decided how long it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.critical_path import Interval, critical_path
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import NightlyRun, Product
from pipeline.site.text_format import span_text

SLACK = 100
"""Milliseconds by which clocks of processes may differ in what one ended and the next began."""
SHOWN_STAGES = 3
"""Stages of a product that are named: those that took longest."""


@dataclass(frozen=True, slots=True)
class PathProduct:
    """A product on the critical path.

    `waited` are the milliseconds before it, since the product before it ended or the run began; `parent`: that product
    is the one that it is built from.
    """

    product: Product
    waited: int
    parent: bool

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """The longest stages, the longest first."""
        return tuple(sorted(self.product.run.steps, key=lambda step: -step[1])[:SHOWN_STAGES])


def night_path(night: NightlyRun) -> tuple[PathProduct, ...]:
    """Return the products that decided how long a run took, in order."""
    worked = {one.name: one for one in night.products if one.run.took}
    intervals = [Interval(name, one.run.began, one.run.began + one.run.took) for name, one in worked.items()]
    found: list[PathProduct] = []
    free, last = float(night.began), ""
    for one in critical_path(intervals, SLACK):
        product = worked[one.name]
        found.append(PathProduct(product, max(0, int(one.began - free)), bool(last) and product.parent == last))
        free, last = one.ended, one.name
    return tuple(found)


def concurrency(products: Sequence[Product], span: int) -> float:
    """Return how many products were worked on at a time in `span` milliseconds, on average."""
    return sum(product.run.took for product in products) / span if span else 0.0


def path_lines(night: NightlyRun) -> Iterator[str]:
    """Yield the critical path as text, one product a line, after a line that says what it is."""
    path = night_path(night)
    if not path:
        return
    at_once = concurrency(night.products, night.ended - night.began)
    yield f"critical path ({at_once:.1f} products at a time on average):"
    for one in path:
        stages = ", ".join(f"{stage} {span_text(took)}" for stage, took in one.stages)
        before = f"waited {span_text(one.waited)}" if one.waited > SLACK else ""
        known = "; ".join(filter(None, (before, stages)))
        after = " after its parent" if one.parent else ""
        yield f"  {one.product.name} {span_text(one.product.run.took)}{after}" + (f" ({known})" if known else "")
