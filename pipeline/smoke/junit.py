"""Conversion of a smoke report to JUnit XML: a suite per instance, a test case per check.

CI servers show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.escaping import escape_invisible
from pipeline.model.report import CheckResult, InstanceReport, SmokeReport
from pipeline.smoke.junit_document import JunitCase, JunitResult, JunitSuite, junit_document
from pipeline.smoke.loopback_ports import list_addresses
from pipeline.smoke.report_text import format_neighbours
from pipeline.smoke.shared_failures import is_skipped


def junit_report(report: SmokeReport, name: str) -> bytes:
    """Return JUnit XML (UTF-8) on the image called `name`; control characters as `\\x1b`."""
    return junit_document(name, _suites(report, name), took=report.took, clean=escape_invisible)


def junit_reports(reports: Sequence[tuple[str, SmokeReport]]) -> bytes:
    """Return JUnit XML as `junit_report` does, on several images as (name, report)."""
    suites = [suite for name, report in reports for suite in _suites(report, name)]
    names, took = ", ".join(name for name, _ in reports), sum(report.took for _, report in reports)
    return junit_document(names, suites, took=took, clean=escape_invisible)


def _suites(report: SmokeReport, name: str) -> list[JunitSuite]:
    suites = [_suite(report, instance, name) for instance in report.instances]
    if report.neighbours:
        suites.append(_neighbours(report, name))
    whole = report.failure or (f"verdict recomputed: {'; '.join(report.problems)}" if _misjudged(report) else "")
    if whole:
        case = _failed(JunitCase(name, "the run as a whole", 0), whole, whole)
        suites.append(JunitSuite(f"{name} as a whole", (case,)))
    return suites


def _suite(report: SmokeReport, instance: InstanceReport, name: str) -> JunitSuite:
    cases = []
    for check in instance.checks:
        case = JunitCase(f"{name}.{instance.name}", check.name, check.took)
        first = check.detail.splitlines()[0] if check.detail else "failed"
        cases.append(case if check.passed else _failed(case, first, _said(check, report)))
    return JunitSuite(
        instance.name,
        cases,
        began=datetime.fromtimestamp(report.started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        facts=tuple(_facts(report, instance)),
        out=instance.log,
    )


def _said(result: CheckResult, report: SmokeReport) -> str:
    """Return why a check failed, its place in the recipe, and what its templates rendered to."""
    asked = report.asked.check_named(result.name)
    if asked is None or is_skipped(result):
        return result.detail
    place = (f"at {asked.place}",) if asked.place else ()
    return "\n".join((result.detail, *place, *(text.sentence for text in asked.from_templates)))


def _neighbours(report: SmokeReport, name: str) -> JunitSuite:
    suite = f"{name} among neighbours"
    cases = []
    for figures in report.neighbours:
        told = format_neighbours(figures)
        case = JunitCase(suite, f"one does {figures.misbehaviour}", 0, out=told)
        cases.append(case if figures.passed else _failed(case, figures.detail, figures.detail))
    return JunitSuite(suite, cases)


def _misjudged(report: SmokeReport) -> bool:
    """Return True if a report records no failure itself, but does not pass when judged again."""
    return report.claimed and not report.passed


def _failed(case: JunitCase, message: str, said: str) -> JunitCase:
    return replace(case, result=JunitResult.FAILURE, message=message, said=said)


def _facts(report: SmokeReport, instance: InstanceReport) -> Iterable[tuple[str, str]]:
    yield "image", str(report.image)
    yield "plan", str(report.plan)
    yield "runtime", report.runtime
    if report.emulator:
        yield "emulator", report.emulator
    for limit in instance.limits:
        read = "nothing" if limit.read is None else str(limit.read)
        state = "enforced" if limit.enforced else f"NOT ENFORCED: {limit.reason}"
        yield f"limit.{limit.name}", f"asked {limit.asked}, read {read}, {state}"
    if instance.role:
        yield "role", instance.role
    if instance.happened:
        yield "happened", instance.happened
    for port in instance.loopback_ports or ():
        yield f"loopback_only.{port.port}/tcp", list_addresses(port.addresses, port.more)
    used = {
        "ready_after_ms": instance.ready_after,
        "exit_code": instance.exit_code,
        "peak_memory_bytes": instance.peak_memory,
        "cpu_time_us": instance.cpu_time,
        "throttled_time_us": instance.throttled_time,
        "peak_pids": instance.peak_pids,
        "oom_kills": instance.oom_kills,
    }
    for key, value in used.items():
        if value is not None:
            yield key, str(value)
    for key, value in instance.measured:
        yield f"measured.{key}", str(value)
