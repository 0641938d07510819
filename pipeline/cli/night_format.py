"""A night, or its plan, as lines for people and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.progress_display import bytes_text
from pipeline.model.json_form import to_json
from pipeline.model.night_record import NightlyRun, Outcome, Product, Stage
from pipeline.site import path_lines

if TYPE_CHECKING:
    from pipeline.nightly.run_night import PlannedProduct

_INDENT = " " * 10
"""Stands before further lines about a product: as wide as the column of outcomes."""

_ALSO_SHOWN = 5
"""Further problems of a product that are shown."""


def planned_lines(planned: tuple[PlannedProduct, ...], repositories: Path) -> list[str]:
    """Describe what a night would do. `repositories` is the file of its platforms."""
    subjects = [(one.product, f"{one.action:<9} {one.product.name}") for one in planned]
    return [line for product, subject in subjects for line in _lines_of(product, subject, repositories)]


def planned_as_json(planned: PlannedProduct) -> dict[str, object]:
    """Return what a night would do about a product, for programs."""
    product = planned.product
    return {
        "action": planned.action,
        "product": product.name,
        "recipe": product.recipe,
        "platform": product.platform,
        "arch": product.arch,
        "from": product.parent,
        "why": product.run.why,
        "failure": None if product.run.failure is None else to_json(product.run.failure),
    }


def night_lines(night: NightlyRun, repositories: Path) -> list[str]:
    """Describe what a night did. `repositories` is the file of its platforms."""
    counts = ", ".join(f"{night.count(outcome)} {outcome}" for outcome in Outcome if night.count(outcome))
    sent = sum(product.run.uploaded for product in night.products)
    took = (night.ended - night.began) / 1000
    lines = [line for product in night.products for line in product_lines(product, repositories)]
    lines += [f"overdue   {text}" for text in night.exceeded]
    lines += [f"set aside {one.worker}: {one.why}" for one in night.set_aside]
    lines += path_lines(night)
    return [*lines, f"{len(night.products)} products in {took:.1f} s: {counts}; {bytes_text(sent)} uploaded"]


def product_lines(product: Product, repositories: Path) -> list[str]:
    """Describe what a night did about a product."""
    version = f" {product.published.version}" if product.published.version else ""
    lines = _lines_of(product, f"{product.run.outcome:<9} {product.name}{version}", repositories)
    if product.run.failure is not None:
        return [*lines, f"{_INDENT}again: {product.run.failure.command}"]
    return [f"{lines[0]}; moved {', '.join(product.run.moved)}"] if product.run.moved else lines


def _lines_of(product: Product, subject: str, repositories: Path) -> list[str]:
    """Describe the outcome or plan of a product; of a failure also its place and the way out."""
    failure = product.run.failure
    if failure is None:
        return [f"{subject}: {product.run.why}"]
    if failure.stage is Stage.PARENT:  # The parent's own lines stand above.
        return [f"{subject}: {product.run.why} [{failure.code}]"]
    # Here and not above: it loads what reads recipes, and most nights have no failure.
    from pipeline.cli.recipe_place import with_path

    def named(text: str) -> str:
        """Name the platforms' files by their paths; those of the recipe have them in the record."""
        name = text.partition(":")[0]
        of_platforms = name == repositories.name or name.endswith(".repo")
        return with_path(text, Path(product.recipe), repositories) if of_platforms else text

    place = f"{named(failure.place)}: " if failure.place else ""
    also = [named(line) for line in failure.message.split("\n")[1:]]
    more = [f"… and {len(also) - _ALSO_SHOWN} more"] if len(also) > _ALSO_SHOWN else []
    told = [*([f"→ {failure.hint}"] if failure.hint else []), *also[:_ALSO_SHOWN], *more]
    return [f"{subject}: {place}{product.run.why} [{failure.code}]", *(f"{_INDENT}{line}" for line in told)]
