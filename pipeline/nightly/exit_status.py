"""Computation of a night's exit code from failures and overdue security fixes."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import FixesLacking
from pipeline.model.advisory import Threshold, age_in_days, exceeding
from pipeline.model.night_record import NightlyRun, Outcome

FAILED_EXIT = 1
"""The exit code of a night in which something failed."""


def with_exit_code(night: NightlyRun, threshold: Threshold | None) -> NightlyRun:
    """Return the night with its exit code.

    Failures take precedence over overdue fixes. Which fixes are overdue depends on the day, so it is computed each
    night, also if nothing changed.
    """
    exceeded = []
    for product in night.products:
        for fix in exceeding(threshold, product.published.missing, night.ended) if threshold else ():
            age = age_in_days(fix.issued, night.ended)
            since = "without a date" if age is None else f"{age} days old"
            exceeded.append(
                f"{product.name} lacks {fix.advisory} ({fix.severity or 'no severity'}, {since}): "
                f"{fix.package} {fix.has}, fixed in {fix.fixed_in}"
            )
    code = FAILED_EXIT if something_failed(night) else FixesLacking.exit_code if exceeded else 0
    return replace(night, threshold=str(threshold or ""), exceeded=tuple(exceeded), exit_code=code)


def something_failed(night: NightlyRun) -> bool:
    """Return True if a product could not be brought up to date."""
    return any(product.run.outcome in (Outcome.FAILED, Outcome.BLOCKED) for product in night.products)
