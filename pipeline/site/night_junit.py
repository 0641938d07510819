"""Convert a nightly run to JUnit XML: a suite for each product, a case for each check.

Another suite has the run's own cases: whether repositories can be read, and whether missing fixes are past the
threshold.

The image itself is a case of each suite: it passes, is an error (something other than a check failed), or is skipped (a
blocked product). The checks of an unchanged product did not run that night, and are not included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.escaping import strip_invisible
from pipeline.model.night_record import (
    NightlyRun,
    Outcome,
    Product,
    Stage,
)
from pipeline.model.published_image import CheckFigure
from pipeline.site.text_format import utc_datetime
from pipeline.smoke.junit_document import JunitCase, JunitResult, JunitSuite, junit_document

_ASKED = frozenset({Stage.SMOKE, Stage.PUBLISH})
"""Stages of a failure in which the product's checks have run."""

_HERE = "localhost"
"""Host of a product without a worker."""


def junit_xml(night: NightlyRun) -> bytes:
    """Return the JUnit document of a nightly run."""
    suites = [_of_product(product, night) for product in night.products]
    own = _of_night(night)
    if own.cases:
        suites.append(own)
    return junit_document(f"night of {night.catalogue}", suites, took=night.ended - night.began, clean=strip_invisible)


def _of_product(product: Product, night: NightlyRun) -> JunitSuite:
    failure = product.run.failure
    asked = product.run.outcome in (Outcome.BUILT, Outcome.RETESTED) or (
        product.run.outcome is Outcome.FAILED and failure is not None and failure.stage in _ASKED
    )
    checks = tuple(_check(check, product) for check in product.published.checks) if asked else ()
    # If a check failed, its case reports the failure of the smoke test.
    told = (
        failure is not None
        and failure.stage is Stage.SMOKE
        and any(case.result is not JunitResult.PASSED for case in checks)
    )
    name = _named(product.name, product.platform, product.arch)
    return JunitSuite(
        name=name,
        package=product.name,
        host=product.run.worker or _HERE,
        began=_time(product.run.began or night.began),
        took=product.run.took,
        facts=tuple(_facts(product)),
        cases=(_image(product, name, sum(case.took for case in checks), told), *checks),
        out=product.run.why,
        err="\n".join(failure.log) if failure else "",
    )


def _image(product: Product, name: str, checks_took: int, told: bool) -> JunitCase:
    failure = product.run.failure
    case = JunitCase(product.name, f"{name}: {product.run.outcome}", max(0, product.run.took - checks_took))
    message = failure.message if failure else product.run.why
    if product.run.outcome is Outcome.BLOCKED:
        return replace(case, result=JunitResult.SKIPPED, message=message)
    if product.run.outcome is not Outcome.FAILED or told:
        return case
    lines = (failure.message, failure.place, failure.hint, failure.command) if failure else (product.run.why,)
    kind = failure.code if failure else "failed"
    return replace(
        case, result=JunitResult.ERROR, kind=kind, message=message, said="\n".join(line for line in lines if line)
    )


def _check(check: CheckFigure, product: Product) -> JunitCase:
    case = JunitCase(f"{product.name}.{check.instance}", check.name, check.took)
    if check.passed:
        return case
    first = check.detail.splitlines()[0] if check.detail.strip() else "failed"
    said = (check.detail, *((f"at {check.place}",) if check.place else ()), *check.rendered)
    return replace(case, result=JunitResult.FAILURE, kind="check", message=first, said="\n".join(said))


def _of_night(night: NightlyRun) -> JunitSuite:
    cases = []
    for state in night.repositories:
        name = f"{_named(state.repository, state.platform, state.arch)} can be read"
        case = JunitCase("night.repositories", name, 0)
        if state.problem:
            case = replace(case, result=JunitResult.ERROR, kind="repository", message=state.problem, said=state.problem)
        cases.append(case)
    if night.threshold:
        case = JunitCase("night.fixes", f"no missing fix is past {night.threshold}", 0)
        if night.exceeded:
            said = "\n".join(night.exceeded)
            case = replace(case, result=JunitResult.FAILURE, kind="threshold", message=night.exceeded[0], said=said)
        cases.append(case)
    facts = (("catalogue", night.catalogue), ("destination", night.destination), ("exit_code", night.exit_code))
    return JunitSuite(
        "night", cases, package="night", host=_HERE, began=_time(night.began), took=0, facts=facts, out="", err=""
    )


def _time(milliseconds: int) -> str:
    return f"{utc_datetime(milliseconds):%Y-%m-%dT%H:%M:%S}"


def _named(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _facts(product: Product) -> Iterator[tuple[str, object]]:
    yield "outcome", product.run.outcome
    yield "recipe", product.recipe
    yield "platform", product.platform
    yield "arch", product.arch
    if product.published.version:
        yield "version", product.published.version
    if product.published.digest is not None:
        yield "image", product.published.digest
    used = product.published.resources
    figures = {
        "peak_memory_bytes": used.peak_memory,
        "cpu_time_us": used.cpu_time,
        "peak_pids": used.peak_pids,
        "ready_after_ms": used.ready_after,
    }
    for key, value in figures.items():
        if value is not None:
            yield key, value
    if product.published.missing:
        yield "missing_fixes", len(product.published.missing)
