"""A night as JUnit XML, which CI servers show: a suite for each product with its checks as cases, and one for what the
night asks besides: whether repositories can be read, and whether fixes are past the threshold.

The image itself is a case of each suite: it passes, is an error (what failed is no check), or is skipped (a blocked
product). The checks of a product with which nothing was done were not asked that night, and so are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.model.night import Night, Outcome, Product, Stage
from pipeline.model.published_image import CheckFigure
from pipeline.site.markup import attributes, text
from pipeline.site.words import moment

_ASKED = frozenset({Stage.SMOKE, Stage.PUBLISH})
"""Stages in which a product that failed has been asked its checks."""

_HERE = "localhost"
"""Where a product was made that names no worker."""


def junit_xml(night: Night) -> bytes:
    """All products of the night."""
    suites = [_of_product(product, night) for product in night.products]
    own = _of_night(night)
    if own.cases:
        suites.append(own)
    totals = attributes(
        name=f"night of {night.catalogue}",
        tests=sum(len(suite.cases) for suite in suites),
        failures=sum(suite.count("failure") for suite in suites),
        errors=sum(suite.count("error") for suite in suites),
        time=_seconds(night.ended - night.began),
    )
    body = "".join(_written(suite, number) for number, suite in enumerate(suites))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites{totals}>\n{body}</testsuites>\n'.encode()


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case. `result` is "" if it passed, else `failure`, `error` or `skipped`, and then `kind`, `message` and
    `said` tell why. `took` milliseconds."""

    classname: str
    name: str
    took: int
    result: str = ""
    kind: str = ""
    message: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class _Suite:
    """A suite. `began` milliseconds since the epoch, `took` milliseconds."""

    name: str
    package: str
    host: str
    began: int
    took: int
    facts: tuple[tuple[str, object], ...]
    cases: tuple[_Case, ...]
    out: str = ""
    err: str = ""

    def count(self, result: str) -> int:
        """How many cases came to that."""
        return sum(case.result == result for case in self.cases)


def _of_product(product: Product, night: Night) -> _Suite:
    failure = product.run.failure
    asked = product.run.outcome in (Outcome.BUILT, Outcome.RETESTED) or (
        product.run.outcome is Outcome.FAILED and failure is not None and failure.stage in _ASKED
    )
    checks = tuple(_check(check, product) for check in product.published.checks) if asked else ()
    # A smoke test's failure is told by its checks, as far as one of them did not pass.
    told = failure is not None and failure.stage is Stage.SMOKE and any(case.result for case in checks)
    name = _named(product.name, product.platform, product.arch)
    return _Suite(
        name=name,
        package=product.name,
        host=product.run.worker or _HERE,
        began=product.run.began or night.began,
        took=product.run.took,
        facts=tuple(_facts(product)),
        cases=(_image(product, name, sum(case.took for case in checks), told), *checks),
        out=product.run.why,
        err="\n".join(failure.log) if failure else "",
    )


def _image(product: Product, name: str, checks_took: int, told: bool) -> _Case:
    failure = product.run.failure
    case = _Case(product.name, f"{name}: {product.run.outcome}", max(0, product.run.took - checks_took))
    message = failure.message if failure else product.run.why
    if product.run.outcome is Outcome.BLOCKED:
        return replace(case, result="skipped", message=message)
    if product.run.outcome is not Outcome.FAILED or told:
        return case
    lines = (failure.message, failure.place, failure.hint, failure.command) if failure else (product.run.why,)
    kind = failure.code if failure else "failed"
    return replace(case, result="error", kind=kind, message=message, said="\n".join(line for line in lines if line))


def _check(check: CheckFigure, product: Product) -> _Case:
    case = _Case(f"{product.name}.{check.instance}", check.name, check.took)
    if check.passed:
        return case
    first = check.detail.splitlines()[0] if check.detail.strip() else "failed"
    return replace(case, result="failure", kind="check", message=first, said=check.detail)


def _of_night(night: Night) -> _Suite:
    cases = []
    for state in night.repositories:
        name = f"{_named(state.repository, state.platform, state.arch)} can be read"
        case = _Case("night.repositories", name, 0)
        if state.problem:
            case = replace(case, result="error", kind="repository", message=state.problem, said=state.problem)
        cases.append(case)
    if night.threshold:
        case = _Case("night.fixes", f"no missing fix is past {night.threshold}", 0)
        if night.exceeded:
            said = "\n".join(night.exceeded)
            case = replace(case, result="failure", kind="threshold", message=night.exceeded[0], said=said)
        cases.append(case)
    facts = (("catalogue", night.catalogue), ("destination", night.destination), ("exit_code", night.exit_code))
    return _Suite("night", "night", _HERE, night.began, 0, facts, tuple(cases))


def _written(suite: _Suite, number: int) -> str:
    opening = attributes(
        name=suite.name,
        id=number,
        package=suite.package,
        hostname=suite.host,
        timestamp=f"{moment(suite.began):%Y-%m-%dT%H:%M:%S}",
        tests=len(suite.cases),
        failures=suite.count("failure"),
        errors=suite.count("error"),
        skipped=suite.count("skipped"),
        time=_seconds(suite.took),
    )
    properties = "".join(f"   <property{attributes(name=key, value=value)}/>\n" for key, value in suite.facts)
    return (
        f" <testsuite{opening}>\n  <properties>\n{properties}  </properties>\n"
        f"{''.join(_case(case) for case in suite.cases)}"
        f"  <system-out>{text(suite.out)}</system-out>\n  <system-err>{text(suite.err)}</system-err>\n </testsuite>\n"
    )


def _case(case: _Case) -> str:
    opening = attributes(classname=case.classname, name=case.name, time=_seconds(case.took))
    if not case.result:
        return f"  <testcase{opening}/>\n"
    if case.result == "skipped":
        return f"  <testcase{opening}><skipped{attributes(message=case.message)}/></testcase>\n"
    why = attributes(message=case.message, type=case.kind)
    return f"  <testcase{opening}><{case.result}{why}>{text(case.said)}</{case.result}></testcase>\n"


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


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
