"""Formatting of a smoke report as lines of text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.escaping import escape_invisible
from pipeline.model.report import CheckResult, InstanceReport, NeighbourFigures, SmokeReport
from pipeline.smoke.log_lines import explaining_line
from pipeline.smoke.shared_failures import (
    SharedFailure,
    is_skipped,
    shared_failures,
)

_LOG_LINE_LIMIT = 300
"""Characters of a log's line that are shown."""


def report_lines(report: SmokeReport) -> tuple[str, ...]:
    """Format a report for a terminal: instances, answers, usage, limits that do not hold.

    A failure that several instances share is told once. Control characters that an image printed appear as `\\x1b`.
    """
    return tuple(escape_invisible(line, lines=False) for line in _lines(report))


def _lines(report: SmokeReport) -> Iterator[str]:
    failures = shared_failures(report)
    logged: set[str] = set()
    for instance in report.instances:
        ready = f", ready after {format_seconds(instance.ready_after)}" if instance.ready_after is not None else ""
        role = f", {instance.role}" if instance.role else ""
        yield f"{instance.name}{role}{ready}{_used(instance)}"
        skipped = Counter(check.detail for check in instance.checks if is_skipped(check))
        for check in instance.checks:
            if is_skipped(check):
                continue
            yield f"  {'✓' if check.passed else '✗'} {check.name} ({format_seconds(check.took)})"
            if not check.passed:
                yield from (f"      {line}" for line in _told(check, instance, failures))
        yield from (f"  ✗ {_checks(number)} {why}" for why, number in skipped.items())
        for limit in instance.limits:
            if not limit.enforced:
                yield f"  ! limit {limit.name} is not enforced: {limit.reason}"
        if instance.happened:
            yield f"  ! {instance.happened}"
        cause = _explained(instance)
        if cause and cause not in logged:
            logged.add(cause)
            yield f"  ! first line of its log that may explain it: {cause}"
    for figures in report.neighbours:
        yield f"{'✓' if figures.passed else '✗'} {format_neighbours(figures)}"
        if figures.detail:
            yield f"      {figures.detail}"
    if report.failure:
        yield f"✗ {report.failure}"
    problems = report.problems
    if problems and report.claimed:
        yield from (f"✗ verdict recomputed: {problem}" for problem in problems)
    verdict = "DID NOT PASS" if problems else "passed"
    yield f"{verdict} in {format_seconds(report.took)} under {report.execution}"


def _checks(number: int) -> str:
    return "1 check" if number == 1 else f"{number} checks"


def _told(check: CheckResult, instance: InstanceReport, failures: tuple[SharedFailure, ...]) -> Iterator[str]:
    """Yield why a check failed and its place in the recipe, or the instance that tells it."""
    of_check = (one for one in failures if one.check == check.name and instance.name in one.instances)
    failure = next(of_check, None)
    if failure is not None and failure.instances[0] != instance.name:
        yield f"as for {failure.instances[0]}"
        return
    yield from check.detail.splitlines()
    if failure is not None:
        yield from (f"at {failure.place}",) if failure.place else ()
        yield from (text.sentence for text in failure.from_templates)


def _explained(instance: InstanceReport) -> str:
    """Return the first line of a failed instance's log that explains the failure, or ""."""
    if all(check.passed for check in instance.checks):
        return ""
    lines = instance.log.splitlines()
    cause = explaining_line(lines)
    said = "" if cause is None else lines[cause].strip()[:_LOG_LINE_LIMIT]
    return "" if any(said in check.detail for check in instance.checks if not check.passed) else said


def format_neighbours(figures: NeighbourFigures) -> str:
    """Format in one line what one instance's misbehaviour changed for its neighbours."""
    effect = f" ({figures.effect})" if figures.effect else ""
    return (
        f"neighbours while one does '{figures.misbehaviour}'{effect}: "
        f"{figures.asked} responses, {figures.failed} failed, "
        f"median {figures.quiet_p50 / 1000:.1f} → {figures.p50 / 1000:.1f} ms, "
        f"99th percentile {figures.quiet_p99 / 1000:.1f} → {figures.p99 / 1000:.1f} ms"
    )


def format_seconds(milliseconds: int) -> str:
    """`250 ms`, `1.5 s`."""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _used(instance: InstanceReport) -> str:
    parts = []
    if instance.peak_memory is not None:
        parts.append(f"{instance.peak_memory / (1 << 20):.1f} MiB")
    if instance.cpu_time is not None:
        parts.append(f"{instance.cpu_time / 1_000_000:.2f} s of CPU")
    if instance.oom_kills:
        parts.append(f"{instance.oom_kills} OOM kills")
    return f" ({', '.join(parts)})" if parts else ""
