"""Compute a run's headline, its products and fixes by urgency, and end-of-life warnings."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import (
    Failure,
    NightlyRun,
    Outcome,
    Product,
    Stage,
)
from pipeline.model.publication import NO_HOST
from pipeline.model.published_image import MissingFix
from pipeline.site.text_format import (
    MILLISECONDS_PER_DAY,
    count_text,
    days_since,
    days_until,
    join_names,
)

OUTCOME_ORDER = (Outcome.FAILED, Outcome.BLOCKED, Outcome.BUILT, Outcome.RETESTED, Outcome.UNCHANGED)
"""Order of outcomes: those that need attention come first."""

SEVERITY_ORDER = ("critical", "important", "moderate", "low", "")
UNRATED_SEVERITY = "unrated"
"""Shown severity of a fix whose advisory has none."""

END_OF_LIFE_WARNING_DAYS = 90
"""Days before a product's end of life from which a warning is shown."""
_NAMED = 3
"""Products that a headline names; more are only counted."""

STAGE_TEXTS = {
    Stage.RECIPE: "in its recipe",
    Stage.RESOLVE: "while packages were resolved",
    Stage.BUILD: "while it was built",
    Stage.SMOKE: "in its smoke test",
    Stage.PUBLISH: "while it was published",
    Stage.PARENT: "because of its parent",
    Stage.WORKER: "on its worker",
}


@dataclass(frozen=True, slots=True)
class AgedFix:
    """A missing fix with its age in days."""

    fix: MissingFix
    severity: str
    age: int


@dataclass(frozen=True, slots=True)
class ShownFailure:
    """A failure that one or several products share.

    `where`: the stage in words. `places` and `commands` are those of all products.
    """

    failure: Failure
    where: str
    places: tuple[str, ...]
    commands: tuple[str, ...]

    @classmethod
    def of(cls, failures: Sequence[Failure]) -> ShownFailure | None:
        """Return what is shown of equal failures, of which there may be none."""
        if not failures:
            return None
        return cls(
            failures[0],
            STAGE_TEXTS[failures[0].stage],
            tuple(dict.fromkeys(one.place for one in failures if one.place)),
            tuple(dict.fromkeys(one.command for one in failures if one.command)),
        )


@dataclass(frozen=True, slots=True)
class EndOfLife:
    """A product's end of life.

    `state`: `passed`, `near` or `far`; `said`: a warning in words, or "".
    """

    day: str
    state: str
    said: str


def order_products(products: tuple[Product, ...]) -> tuple[Product, ...]:
    """Sort products: failed ones first (OUTCOME_ORDER), then by name."""
    return tuple(
        sorted(products, key=lambda one: (OUTCOME_ORDER.index(one.run.outcome), one.name, one.platform, one.arch))
    )


def headline(night: NightlyRun) -> str:
    """Return the run in one line, without a full stop."""
    failed = _names(night, Outcome.FAILED)
    blocked = _names(night, Outcome.BLOCKED)
    total = len({product.name for product in night.products})
    if failed or blocked:
        said = [f"{_few(failed, total)} failed"] if failed else []
        if blocked:
            said.append(f"{_few(blocked, total)} {'is' if len(blocked) == 1 else 'are'} blocked")
        return "; ".join(said)
    if night.exceeded:
        return "Security fixes are overdue"
    if any(state.problem for state in night.repositories):
        return "A repository could not be read"
    if night.exit_code:
        return f"The night ended with exit code {night.exit_code}"
    if not night.products:
        return "No products"
    new = night.count(Outcome.BUILT)
    all_well = (
        f"All {count_text(total, 'product')} are up to date" if total > 1 else f"{night.products[0].name} is up to date"
    )
    return f"{all_well}, {count_text(new, 'new image')}" if new else f"{all_well}, nothing changed"


def has_no_address(night: NightlyRun) -> bool:
    """Return whether the run knows no address that other machines can pull from."""
    return night.known_as.partition("/")[0] in ("", NO_HOST)


def aged_fixes(product: Product, now: int) -> tuple[AgedFix, ...]:
    """Return a product's missing fixes with their ages, the worst first, then the oldest."""
    found = [
        AgedFix(fix, fix.severity or UNRATED_SEVERITY, days_since(fix.issued, now)) for fix in product.published.missing
    ]
    return tuple(
        sorted(found, key=lambda one: (severity_order(one.fix.severity), -one.age, one.fix.advisory, one.fix.package))
    )


def severity_order(severity: str) -> int:
    """Return the rank of a severity: 0 is the worst; unknown words come last."""
    return SEVERITY_ORDER.index(severity) if severity in SEVERITY_ORDER else len(SEVERITY_ORDER)


def end_of_life_status(product: Product, now: int) -> EndOfLife | None:
    """Return a product's end of life, compared with `now`; None if the date is unknown."""
    days = days_until(product.end_of_life, now)
    if days is None:
        return None
    if days < 0:
        return EndOfLife(product.end_of_life, "passed", f"its end of life was {count_text(-days, 'day')} ago")
    if days <= END_OF_LIFE_WARNING_DAYS:
        when = "today" if days == 0 else f"in {count_text(days, 'day')}"
        return EndOfLife(product.end_of_life, "near", f"its end of life is {when}")
    return EndOfLife(product.end_of_life, "far", "")


def day_dependent_texts(product: Product, now: int) -> list[str]:
    """Return all texts of a product's page that depend on the present day."""
    end = end_of_life_status(product, now)
    return [str((now - fix.issued) // MILLISECONDS_PER_DAY) for fix in product.published.missing] + [
        end.said if end else ""
    ]


def _names(night: NightlyRun, outcome: Outcome) -> list[str]:
    return sorted({product.name for product in night.products if product.run.outcome is outcome})


def _few(names: list[str], total: int) -> str:
    return join_names(names) if len(names) <= _NAMED else f"{len(names)} of {count_text(total, 'product')}"
