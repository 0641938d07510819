"""JUnit data classes and their writer to XML, by `junitparser`.

Written are the elements and attributes that the schemas of Ant and Jenkins have in common, which CI servers read.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass

if TYPE_CHECKING:
    from junitparser import TestCase, TestSuite


class JunitResult(StrEnum):
    """The result of a test case."""

    PASSED = "passed"
    FAILURE = "failure"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class JunitCase:
    """A test case of a suite.

    `message`, `kind` and `said` tell why it did not pass, `out` is its output. `took` is milliseconds.
    """

    classname: str
    name: str
    took: int
    result: JunitResult = JunitResult.PASSED
    kind: str | None = None
    message: str = ""
    said: str = ""
    out: str = ""


@dataclass(frozen=True, slots=True)
class JunitSuite:
    """A suite of test cases.

    `began` is its time in ISO 8601 without a zone, `took` milliseconds, None for the sum of its cases.
    """

    name: str
    cases: Sequence[JunitCase]
    package: str | None = None
    host: str | None = None
    began: str | None = None
    took: int | None = None
    facts: Sequence[tuple[str, object]] = ()
    out: str | None = None
    err: str | None = None


def junit_document(name: str, suites: Iterable[JunitSuite], *, took: int, clean: Callable[[str], str]) -> bytes:
    """Write a document in UTF-8; `took` in milliseconds, `clean` escapes what XML cannot hold."""
    from junitparser import JUnitXml

    document = JUnitXml(clean(name))
    made = [_suite(suite, number, clean) for number, suite in enumerate(suites)]
    document.extend(made)
    # Not by the library: it would write a count of skipped cases, which the schemas have for suites alone.
    document.tests = sum(suite.tests for suite in made)
    document.failures = sum(suite.failures for suite in made)
    document.errors = sum(suite.errors for suite in made)
    document.time = took / 1000
    written = io.BytesIO()
    document.write(written)
    return written.getvalue() + b"\n"


@functools.cache
def _suite_class() -> type[TestSuite]:
    """Return a suite class with the attributes of Ant's schema that the library lacks."""
    from junitparser import Attr
    from junitparser import TestSuite as Plain

    class Suite(Plain):
        id = Attr()
        package = Attr()

    return Suite


def _suite(suite: JunitSuite, number: int, clean: Callable[[str], str]) -> TestSuite:
    from junitparser import Properties, Property, SystemErr, SystemOut

    made = _suite_class()(clean(suite.name))
    told = {"id": str(number), "package": suite.package, "hostname": suite.host, "timestamp": suite.began}
    for key, value in told.items():
        if value is not None:
            setattr(made, key, clean(value))
    properties = Properties()
    for fact, found in suite.facts:
        properties.add_property(Property(clean(fact), clean(str(found))))
    made.append(properties)
    made.add_testcases([_case(case, clean) for case in suite.cases])
    if suite.took is not None:
        made.time = suite.took / 1000
    if suite.out is not None:
        made.append(SystemOut(clean(suite.out)))
    if suite.err is not None:
        made.append(SystemErr(clean(suite.err)))
    return made


def _case(case: JunitCase, clean: Callable[[str], str]) -> TestCase:
    from junitparser import Error, Failure, Skipped
    from junitparser import TestCase as Case

    made = Case(clean(case.name), clean(case.classname), case.took / 1000)
    if case.result is not JunitResult.PASSED:
        kinds = {JunitResult.FAILURE: Failure, JunitResult.ERROR: Error, JunitResult.SKIPPED: Skipped}
        result = kinds[case.result](clean(case.message))
        result.message = clean(case.message)  # Also an empty one, which the constructor leaves out.
        if case.kind is not None:
            result.type = clean(case.kind)
        if case.said:
            result.text = clean(case.said)
        made.result = result
    if case.out:
        made.system_out = clean(case.out)
    return made
