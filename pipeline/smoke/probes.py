"""Run one check on one instance: ask again until the answer is right or time is over."""

from __future__ import annotations

import time

from pipeline.model.check_kind import CheckAnswer, NoAnswer
from pipeline.model.checks import attempt, judge, record_answer
from pipeline.model.image import Image
from pipeline.model.report import CheckResult
from pipeline.model.smoke import Check
from pipeline.model.value_comparison import readable
from pipeline.sandbox import LaunchedInstance
from pipeline.smoke.instance_probe import InstanceProbe, describe_exit

_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.5
"""Seconds between attempts: short at first, because most servers are up in less than a second."""


def run_check(check: Check, instance: LaunchedInstance, image: Image) -> CheckResult:
    """Run a check, of any kind but those that restart, and return its result.

    Asks until the answer is right, `check.within` milliseconds have passed, or the instance has ended. The final
    verdict is on the answer as it is recorded.
    """
    begun = time.monotonic()
    answer, why = repeat_until_right(check, InstanceProbe(instance, image), begun + check.within / 1000)
    kept = record_answer(check, answer)
    wrong = judge(check, kept, image.config)
    took = round((time.monotonic() - begun) * 1000)
    return CheckResult(check.name, not wrong, took, readable(why or wrong) if wrong else "", kept)


def repeat_until_right(check: Check, probe: InstanceProbe, deadline: float) -> tuple[CheckAnswer, str]:
    """Repeat a check until its answer is right, the instance has ended, or time is over.

    Returns the right answer and "", or the last complete answer and why it was not asked again.
    """
    instance, config = probe.instance, probe.image.config
    pause = _FIRST_PAUSE
    told: tuple[CheckAnswer, str] | None = None
    while True:
        # Before the attempt: what an instance printed before it ended still counts.
        ended = not instance.alive
        seen = attempt(check, probe, deadline)
        wrong = judge(check, seen.answer, config)
        if not wrong or seen.settled:
            return seen.answer, wrong
        if ended:
            why = f"the instance ended with {describe_exit(instance)}"
            return NoAnswer(why), why
        # An attempt that the deadline cut off says less than the one before it.
        told = told if seen.cut_off and told is not None else (seen.answer, wrong)
        left = deadline - time.monotonic()
        if left <= 0:
            return told[0], f"not within {check.within} ms: {told[1]}"
        instance.wait(min(pause, left))
        pause = min(pause * 1.5, _LAST_PAUSE)
