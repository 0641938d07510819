"""A smoke report as JSON and back, and as lines for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from pipeline.digest import Digest, canonical_json, identity
from pipeline.errors import VerificationError
from pipeline.model.smoke import (
    CheckResult,
    InstanceReport,
    LimitReading,
    NeighbourFigures,
    SmokePlan,
    SmokeReport,
)

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_PLAN_VERSION = 2
_SCHEMA = 2


def plan_digest(plan: SmokePlan) -> Digest:
    """A name for what is asked. Where in the recipe it is asked does not matter."""
    value = asdict(plan)
    for check in [*value["checks"], *([value["ready"]] if value["ready"] else [])]:
        del check["place"]
    return identity("smoke-plan", _PLAN_VERSION, plan=json.loads(canonical_json(_whole(value))))


def _whole(value: object) -> object:
    """The same with fractions as texts, which canonical JSON has none of."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(inner) for inner in value]
    return repr(value) if isinstance(value, float) else value


def report_json(report: SmokeReport) -> dict[str, object]:
    """JSON values that `read_report` makes the same report of."""
    value = asdict(report)
    for key in ("image", "plan"):
        value[key] = str(getattr(report, key))
    for instance in value["instances"]:
        instance["checks"] = list(instance["checks"])
        instance["limits"] = list(instance["limits"])
        instance["measured"] = dict(instance["measured"])
    value["instances"] = list(value["instances"])
    value["neighbours"] = list(value["neighbours"])
    return {"schema": _SCHEMA, "passed": report.passed, **value}


def read_report(value: Mapping[str, object]) -> SmokeReport:
    """What `report_json` wrote. `passed` is not believed but found out again.

    Raises VerificationError `report-malformed`.
    """
    try:
        if value["schema"] != _SCHEMA:
            raise ValueError(f"schema {value['schema']} is unknown")
        instances, neighbours = value["instances"], value["neighbours"]
        if not isinstance(instances, list) or not isinstance(neighbours, list):
            raise TypeError("instances or neighbours is no array")
        return SmokeReport(
            image=Digest.parse(_text(value["image"])),
            plan=Digest.parse(_text(value["plan"])),
            runtime=_text(value["runtime"]),
            instances=tuple(_instance(instance) for instance in instances),
            started=_number(value["started"]),
            took=_number(value["took"]),
            failure=_text(value["failure"]),
            neighbours=tuple(_figures(figures) for figures in neighbours),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError("report-malformed", f"this is no smoke report: {error!r}") from error


def _instance(value: Mapping[str, object]) -> InstanceReport:
    checks, limits, measured = value["checks"], value["limits"], value["measured"]
    if not isinstance(checks, list) or not isinstance(limits, list) or not isinstance(measured, dict):
        raise TypeError("checks or limits is no array, or measured no object")
    return InstanceReport(
        name=_text(value["name"]),
        checks=tuple(
            CheckResult(_text(check["name"]), _truth(check["passed"]), _number(check["took"]), _text(check["detail"]))
            for check in checks
        ),
        limits=tuple(
            LimitReading(
                _text(limit["name"]),
                _number(limit["asked"]),
                _optional(limit["read"]),
                _truth(limit["enforced"]),
                _text(limit["reason"]),
            )
            for limit in limits
        ),
        ready_after=_optional(value["ready_after"]),
        exit_code=_optional(value["exit_code"]),
        peak_memory=_optional(value["peak_memory"]),
        cpu_time=_optional(value["cpu_time"]),
        throttled_time=_optional(value["throttled_time"]),
        peak_pids=_optional(value["peak_pids"]),
        oom_kills=_optional(value["oom_kills"]),
        log=_text(value["log"]),
        role=_text(value["role"]),
        happened=_text(value["happened"]),
        measured=tuple(sorted((_text(key), _number(figure)) for key, figure in measured.items())),
    )


def _figures(value: Mapping[str, object]) -> NeighbourFigures:
    return NeighbourFigures(
        misbehaviour=_text(value["misbehaviour"]),
        passed=_truth(value["passed"]),
        asked=_number(value["asked"]),
        failed=_number(value["failed"]),
        quiet_p50=_number(value["quiet_p50"]),
        quiet_p99=_number(value["quiet_p99"]),
        p50=_number(value["p50"]),
        p99=_number(value["p99"]),
        effect=_text(value["effect"]),
        detail=_text(value["detail"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value


def _optional(value: object) -> int | None:
    return None if value is None else _number(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


# --- for people --------------------------------------------------------------------------------------


def report_lines(report: SmokeReport) -> tuple[str, ...]:
    """What a terminal shows: every instance with its answers, what it used, and limits that do not hold. What
    an image printed cannot steer the terminal: control characters appear as `\\x1b`."""
    return tuple(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line) for line in _lines(report))


def _lines(report: SmokeReport) -> Iterator[str]:
    for instance in report.instances:
        ready = f", ready after {seconds(instance.ready_after)}" if instance.ready_after is not None else ""
        role = f", {instance.role}" if instance.role else ""
        yield f"{instance.name}{role}{ready}{_used(instance)}"
        for check in instance.checks:
            yield f"  {'✓' if check.passed else '✗'} {check.name} ({seconds(check.took)})"
            if not check.passed:
                yield from (f"      {line}" for line in check.detail.splitlines())
        for limit in instance.limits:
            if not limit.enforced:
                yield f"  ! limit {limit.name} is not enforced: {limit.reason}"
        if instance.happened:
            yield f"  ! {instance.happened}"
    for figures in report.neighbours:
        yield f"{'✓' if figures.passed else '✗'} {neighbours_line(figures)}"
        if figures.detail:
            yield f"      {figures.detail}"
    if report.failure:
        yield f"✗ {report.failure}"
    verdict = "passed" if report.passed else "DID NOT PASS"
    yield f"{verdict} in {seconds(report.took)} under {report.runtime}"


def neighbours_line(figures: NeighbourFigures) -> str:
    """What the neighbours of one that misbehaves noticed, in a line."""
    effect = f" ({figures.effect})" if figures.effect else ""
    return (
        f"neighbours of one that does '{figures.misbehaviour}'{effect}: "
        f"{figures.asked} answers, {figures.failed} failed, "
        f"median {figures.quiet_p50 / 1000:.1f} → {figures.p50 / 1000:.1f} ms, "
        f"99th percentile {figures.quiet_p99 / 1000:.1f} → {figures.p99 / 1000:.1f} ms"
    )


def seconds(milliseconds: int) -> str:
    """`250 ms`, `1.5 s`."""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _used(instance: InstanceReport) -> str:
    parts = []
    if instance.peak_memory is not None:
        parts.append(f"{instance.peak_memory / (1 << 20):.1f} MiB")
    if instance.cpu_time is not None:
        parts.append(f"{instance.cpu_time / 1_000_000:.2f} s of CPU")
    if instance.oom_kills:
        parts.append(f"{instance.oom_kills} killed for want of memory")
    return f" ({', '.join(parts)})" if parts else ""
