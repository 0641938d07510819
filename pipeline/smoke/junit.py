"""A smoke report as JUnit XML, which CI servers show: a suite per instance, a test case per check."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from pipeline.escaping import visible
from pipeline.model.report import InstanceReport, SmokeReport
from pipeline.smoke.report import neighbours_line


def junit(report: SmokeReport, name: str) -> bytes:
    """The report on the image called `name`, UTF-8. Control characters appear as `\\x1b`."""
    suites = [_suite(report, instance, name) for instance in report.instances]
    if report.neighbours:
        suites.append(_neighbours(report, name))
    whole = report.failure or (f"judged again: {'; '.join(report.problems)}" if _misjudged(report) else "")
    if whole:
        suites.append(_verdict(whole, name))
    tests = sum(len(instance.checks) for instance in report.instances) + bool(whole) + len(report.neighbours)
    failures = sum(not check.passed for instance in report.instances for check in instance.checks)
    failures += sum(not figures.passed for figures in report.neighbours)
    body = "\n".join(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<testsuites{_attributes(name=name, tests=tests, failures=failures + bool(whole), errors=0)}"
        f"{_attributes(time=_seconds(report.took))}>\n{body}\n</testsuites>\n"
    ).encode()


def _suite(report: SmokeReport, instance: InstanceReport, name: str) -> str:
    failed = sum(not check.passed for check in instance.checks)
    took = sum(check.took for check in instance.checks)
    opening = _attributes(
        name=instance.name, tests=len(instance.checks), failures=failed, errors=0, time=_seconds(took)
    )
    lines = [f" <testsuite{opening}{_attributes(timestamp=_time(report.started))}>", "  <properties>"]
    lines += [f"   <property{_attributes(name=key, value=value)}/>" for key, value in _facts(report, instance)]
    lines.append("  </properties>")
    for check in instance.checks:
        opening = _attributes(classname=f"{name}.{instance.name}", name=check.name, time=_seconds(check.took))
        if check.passed:
            lines.append(f"  <testcase{opening}/>")
        else:
            first = check.detail.splitlines()[0] if check.detail else "failed"
            lines.append(
                f"  <testcase{opening}><failure{_attributes(message=first)}>{_text(check.detail)}</failure></testcase>"
            )
    lines += [f"  <system-out>{_text(instance.log)}</system-out>", " </testsuite>"]
    return "\n".join(lines)


def _neighbours(report: SmokeReport, name: str) -> str:
    suite = f"{name} among neighbours"
    failed = sum(not figures.passed for figures in report.neighbours)
    lines = [f" <testsuite{_attributes(name=suite, tests=len(report.neighbours), failures=failed, errors=0)}>"]
    for figures in report.neighbours:
        inner = f"<system-out>{_text(neighbours_line(figures))}</system-out>"
        if not figures.passed:
            inner = f"<failure{_attributes(message=figures.detail)}>{_text(figures.detail)}</failure>{inner}"
        case = _attributes(classname=suite, name=f"one does {figures.misbehaviour}", time="0.000")
        lines.append(f"  <testcase{case}>{inner}</testcase>")
    return "\n".join([*lines, " </testsuite>"])


def _misjudged(report: SmokeReport) -> bool:
    """Does it not pass, though nothing in it says so?"""
    return report.claimed and not report.passed


def _verdict(whole: str, name: str) -> str:
    opening = _attributes(name=f"{name} as a whole", tests=1, failures=1, errors=0, time="0.000")
    case = _attributes(classname=name, name="the run as a whole", time="0.000")
    failure = f"<failure{_attributes(message=whole)}>{_text(whole)}</failure>"
    return f" <testsuite{opening}>\n  <testcase{case}>{failure}</testcase>\n </testsuite>"


def _facts(report: SmokeReport, instance: InstanceReport) -> Iterable[tuple[str, str]]:
    yield "image", str(report.image)
    yield "plan", str(report.plan)
    yield "runtime", report.runtime
    for limit in instance.limits:
        read = "nothing" if limit.read is None else str(limit.read)
        state = "enforced" if limit.enforced else f"NOT ENFORCED: {limit.reason}"
        yield f"limit.{limit.name}", f"asked {limit.asked}, read {read}, {state}"
    if instance.role:
        yield "role", instance.role
    if instance.happened:
        yield "happened", instance.happened
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


def _attributes(**values: object) -> str:
    return "".join(f" {key}={quoteattr(visible(str(value)))}" for key, value in values.items())


def _text(text: str) -> str:
    return escape(visible(text))


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
