"""Judgement of a smoke report: the reasons why it fails, from its recorded answers.

It covers the instances that were launched, their answers, the limits that were read back, and neighbours' latencies.
The report's own `passed` and `enforced` are not believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.model.checks import judge, judge_mounts
from pipeline.model.enforcement import asked_limits, is_enforced
from pipeline.model.image import ImageConfig
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import CheckResult, InstanceReport, NeighbourFigures, SmokeReport
from pipeline.model.smoke import Neighbours, SmokePlan, Variant
from pipeline.model.smoke_questions import Question, expected_questions, neighbour_check

NOTHING_ASKED = "no checks: the recipe has neither 'smoke.ready' nor 'smoke.checks'"
NOTHING_LAUNCHED = "no instances: 'smoke.instances' is 0"

_ARBITRARY = re.compile(r"[1-9]\d{4}:0")
"""The users that the arbitrary-uid variant runs as: numbers that no image has an account for, in group 0."""


def report_problems(report: SmokeReport) -> tuple[str, ...]:
    """Return the reasons why the report does not pass; empty if it does."""
    return tuple(_problems(report))


def _problems(report: SmokeReport) -> Iterator[str]:
    plan = report.asked
    if report.failure:
        yield report.failure
    if plan_digest(plan) != report.plan:
        yield f"the plan in the report is {plan_digest(plan)}, not {report.plan}"
    if plan.ready is None and not plan.checks:
        yield NOTHING_ASKED
    elif plan.instances < 1:
        yield NOTHING_LAUNCHED
    else:
        yield from _instances(report)
    yield from _neighbours(report)


# --- instances -----------------------------------------------------------------------------------------


def _instances(report: SmokeReport) -> Iterator[str]:
    plan = report.asked
    wanted: list[tuple[Variant | None, bool]] = [(None, False)] * plan.instances
    wanted += [(variant, False) for variant in plan.variants]
    wanted += [(None, True)] if plan.upgrade_from else []
    if len(report.instances) != len(wanted):
        yield f"{len(report.instances)} instances were launched instead of {len(wanted)}"
        return
    if len({instance.name for instance in report.instances}) != len(wanted):
        yield "several instances have the same name"
    for instance, (variant, upgraded) in zip(report.instances, wanted, strict=True):
        older = _older(report, instance, upgraded=upgraded)
        role = f"{instance.name} was launched as {_role(instance.variant, instance.upgraded_from is not None)}"
        if instance.variant is not variant or (instance.upgraded_from is not None) is not upgraded:
            yield f"{role}, not as {_role(variant, upgraded)}"
        elif upgraded and older is None:
            yield f"{instance.name}: its older image is not the one in the report"
        elif variant is Variant.ARBITRARY_UID and not _ARBITRARY.fullmatch(instance.user):
            yield f"{instance.name} ran as '{instance.user}', which is not an arbitrary user"
        else:
            asked = expected_questions(plan, report.config, older=older, variant=variant)
            yield from (f"{instance.name}: {wrong}" for wrong in _answers(asked, instance))
            yield from (f"{instance.name}: {wrong}" for wrong in _limits(plan, instance))


def _older(report: SmokeReport, instance: InstanceReport, *, upgraded: bool) -> ImageConfig | None:
    if not upgraded or report.older is None or report.older.digest != instance.upgraded_from:
        return None
    return report.older.config


def _role(variant: Variant | None, upgraded: bool) -> str:
    return "an upgrade" if upgraded else str(variant or "an ordinary one")


def _answers(asked: tuple[Question, ...], instance: InstanceReport) -> Iterator[str]:
    names = [result.name for result in instance.checks]
    wanted = [question.name for question in asked]
    failed = [result for result in instance.checks if not result.passed]
    if names != wanted and not failed:
        yield f"its checks were {', '.join(names) or 'none'}; the plan has {', '.join(wanted)}"
        return
    if names != wanted:
        yield from (f"{result.name}: {_reason(result)}" for result in failed)
        return
    for question, result in zip(asked, instance.checks, strict=True):
        wrong = _wrong(question, result)
        if wrong:
            yield f"{result.name}: {wrong}"


def _wrong(question: Question, result: CheckResult) -> str:
    if not result.passed:
        return _reason(result)
    if question.check is None:
        return judge_mounts(result.answer, question.config)
    return judge(question.check, result.answer, question.config, question.ready)


def _reason(result: CheckResult) -> str:
    return result.detail.splitlines()[0] if result.detail.strip() else "failed"


def _limits(plan: SmokePlan, instance: InstanceReport) -> Iterator[str]:
    readings = {reading.name: reading for reading in instance.limits}
    for name, asked in asked_limits(plan.limits):
        reading = readings.get(name)
        if reading is None:
            yield f"limit {name} was not read back"
        elif reading.asked != asked:
            yield f"limit {name} was {reading.asked}, the plan has {asked}"
    for reading in instance.limits:
        if (plan.limits.enforce or reading.enforced) and not is_enforced(reading):
            yield f"limit {reading.name} is not enforced: asked {reading.asked}, read {reading.read}"


# --- neighbours ------------------------------------------------------------------------------------------


def _neighbours(report: SmokeReport) -> Iterator[str]:
    wanted = report.asked.neighbours
    kinds = [str(kind) for kind in wanted.misbehave] if wanted and neighbour_check(report.asked) else []
    if [figures.misbehaviour for figures in report.neighbours] != kinds:
        yield f"neighbours were not measured while one does {', '.join(kinds) or 'nothing'}"
    elif wanted is not None:
        for figures in report.neighbours:
            wrong = (not figures.passed and (figures.detail or "failed")) or judge_neighbours(figures, wanted)
            if wrong:
                yield f"neighbours while one does '{figures.misbehaviour}': {wrong}"


def judge_neighbours(figures: NeighbourFigures, wanted: Neighbours) -> str:
    """Return what is wrong with the figures; empty if all is right.

    It is right if the neighbours noticed no more than they may.
    """
    others = wanted.count - 1
    if figures.quiet_failed:
        return f"{figures.quiet_failed} responses were wrong before the misbehaviour"
    if figures.failed:
        return f"{figures.failed} responses were missing or wrong"
    if not figures.effect:
        return "not measured: the misbehaviour had no effect"
    if figures.asked < others or figures.quiet_asked < others:
        return f"not all of the {others} neighbours were measured"
    for quiet, meanwhile, what in (
        (figures.quiet_p50, figures.p50, "median"),
        (figures.quiet_p99, figures.p99, "99th percentile"),
    ):
        allowed = wanted.factor * max(quiet, wanted.floor)
        if meanwhile > allowed:
            return (
                f"the {what} of the neighbours' latency rose from {quiet / 1000:.1f} ms to {meanwhile / 1000:.1f} ms, "
                f"more than the limit of {allowed / 1000:.1f} ms"
            )
    return ""
