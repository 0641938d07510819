"""Failures of a smoke test, each told once for all instances that share it.

A failure is a check that did not pass, an end that the kernel or a signal caused, or a problem of the whole report.
Checks that were skipped because of another failure are counted, not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.report import CheckResult, InstanceReport, SmokeReport
from pipeline.model.smoke import RenderedText
from pipeline.smoke.log_lines import SKIPPED

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class SharedFailure:
    """A failure, and the instances that share it.

    `check` is the name of the check, "" for another problem. `reason` may have several lines. `instances` is empty for
    a problem of the whole report. `place` is the check's `file:line` in the recipe, "" if unknown, and
    `from_templates` what its templates rendered to.
    """

    check: str
    reason: str
    instances: tuple[str, ...]
    place: str = ""
    from_templates: tuple[RenderedText, ...] = ()

    @property
    def sentence(self) -> str:
        """The failure in one line, without its instances."""
        first = self.reason.strip().split("\n")[0] or "failed"
        return f"{self.check}: {first}" if self.check else first


def shared_failures(report: SmokeReport) -> tuple[SharedFailure, ...]:
    """Return the failures of a report, what ended an instance first, then checks in their order."""
    found: dict[tuple[str, str], SharedFailure] = {}
    told: set[str] = set()
    for instance, check, reason in _all_reasons(report):
        told.add(f"{instance.name}: {check}: {_first_line(reason)}" if check else f"{instance.name}: {reason}")
        key = check, _NUMBER.sub("#", reason.replace(instance.name, ""))
        known = found.get(key)
        if known is not None:
            found[key] = _with_instance(known, instance.name)
            continue
        asked = report.asked.check_named(check)
        found[key] = SharedFailure(
            check, reason, (instance.name,), asked.place if asked else "", asked.from_templates if asked else ()
        )
    others = [problem for problem in report.problems if not all(part in told for part in problem.split(" | "))]
    skipped = {f"{instance.name}: {one.name}: {one.detail}" for instance, one in _skipped(report)}
    others = [problem for problem in others if problem not in skipped]
    return (*found.values(), *(SharedFailure("", problem, ()) for problem in dict.fromkeys(others)))


def instances_text(failure: SharedFailure, report: SmokeReport) -> str:
    """Return the instances of a failure in words: `all 3 instances`, `mysql-1, mysql-2`, ""."""
    total = len(report.instances)
    if total > 1 and len(failure.instances) == total:
        return "both instances" if total == 2 else f"all {total} instances"
    return ", ".join(failure.instances)


def failures_json(report: SmokeReport) -> list[dict[str, object]]:
    """Return the failures as JSON values, for `report.json` and `smoke --json`."""
    return [
        {
            "check": one.check or None,
            "reason": one.reason,
            "instances": list(one.instances),
            "place": one.place or None,
            "from_templates": [
                {"key": text.key, "template": text.template, "rendered": text.rendered} for text in one.from_templates
            ],
        }
        for one in shared_failures(report)
    ]


def _all_reasons(report: SmokeReport) -> Iterator[tuple[InstanceReport, str, str]]:
    """Yield (instance, check, reason) of what failed, without what was only skipped."""
    for instance in report.instances:
        if instance.happened and not all(check.passed for check in instance.checks):
            yield instance, "", instance.happened
    for instance in report.instances:
        for result in instance.checks:
            if not result.passed and not is_skipped(result):
                yield instance, result.name, result.detail


def _skipped(report: SmokeReport) -> Iterator[tuple[InstanceReport, CheckResult]]:
    for instance in report.instances:
        if any(not one.passed and not is_skipped(one) for one in instance.checks):
            yield from ((instance, one) for one in instance.checks if is_skipped(one))


def is_skipped(result: CheckResult) -> bool:
    """Return whether a check was not asked because of another failure."""
    return not result.passed and result.detail.startswith(SKIPPED)


def _with_instance(failure: SharedFailure, name: str) -> SharedFailure:
    names = tuple(dict.fromkeys((*failure.instances, name)))
    return SharedFailure(failure.check, failure.reason, names, failure.place, failure.from_templates)


def _first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason.strip() else "failed"
