"""A night at a glance: its headline, the order of products, how urgent something is."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.night import Night, Outcome, Product, Stage
from pipeline.model.published_image import MissingFix
from pipeline.site.words import DAY, age_in_days, count_text, days_until, listed

ORDER = (Outcome.FAILED, Outcome.BLOCKED, Outcome.BUILT, Outcome.RETESTED, Outcome.UNCHANGED)
"""What needs somebody comes first."""

SEVERITIES = ("critical", "important", "moderate", "low", "")
UNRATED = "unrated"
"""The word for a fix to which no advisory gives a severity."""

END_NEAR = 90
"""Days before its end of life from which a product is warned of."""
_NAMED = 3
"""Products that a headline names; more are counted."""

STAGES = {
    Stage.RECIPE: "in its recipe",
    Stage.RESOLVE: "while packages were resolved",
    Stage.BUILD: "while it was built",
    Stage.SMOKE: "in its smoke test",
    Stage.PUBLISH: "while it was published",
    Stage.PARENT: "because of its parent",
    Stage.WORKER: "on its worker",
}


@dataclass(frozen=True, slots=True)
class Overdue:
    """A missing fix with its age in days."""

    fix: MissingFix
    severity: str
    age: int


@dataclass(frozen=True, slots=True)
class EndOfLife:
    """The end of life of a product and how near it is.

    `state` is `passed`, `near` or `far`, `said` tells it in words.
    """

    day: str
    state: str
    said: str


def ordered(products: tuple[Product, ...]) -> tuple[Product, ...]:
    """Failed first, then by name."""
    return tuple(sorted(products, key=lambda one: (ORDER.index(one.run.outcome), one.name, one.platform, one.arch)))


def headline(night: Night) -> str:
    """The night in one line, without a full stop."""
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


def missing_fixes(product: Product, now: int) -> tuple[Overdue, ...]:
    """The worst first, then the oldest."""
    found = [Overdue(fix, fix.severity or UNRATED, age_in_days(fix.issued, now)) for fix in product.published.missing]
    return tuple(sorted(found, key=lambda one: (rank(one.fix.severity), -one.age, one.fix.advisory, one.fix.package)))


def rank(severity: str) -> int:
    """0 is the worst. A word that is not known stands behind those that are."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def end_of_life(product: Product, now: int) -> EndOfLife | None:
    """None where no date is known."""
    days = days_until(product.end_of_life, now)
    if days is None:
        return None
    if days < 0:
        return EndOfLife(product.end_of_life, "passed", f"its end of life was {count_text(-days, 'day')} ago")
    if days <= END_NEAR:
        when = "today" if days == 0 else f"in {count_text(days, 'day')}"
        return EndOfLife(product.end_of_life, "near", f"its end of life is {when}")
    return EndOfLife(product.end_of_life, "far", "")


def ages(product: Product, now: int) -> list[str]:
    """All that a product's page says that depends on the day."""
    end = end_of_life(product, now)
    return [str((now - fix.issued) // DAY) for fix in product.published.missing] + [end.said if end else ""]


def _names(night: Night, outcome: Outcome) -> list[str]:
    return sorted({product.name for product in night.products if product.run.outcome is outcome})


def _few(names: list[str], total: int) -> str:
    return listed(names) if len(names) <= _NAMED else f"{len(names)} of {count_text(total, 'product')}"
