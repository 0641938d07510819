"""One question to one instance, asked again until the answer is right or its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from pipeline.model.checks import (
    CheckAnswer,
    CheckKind,
    NoAnswer,
    judge,
    record_answer,
)
from pipeline.model.checks.command_check import CommandAnswer
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.stop_check import DEFAULT_SIGNAL, StopAnswer
from pipeline.model.image import Image, ImageConfig
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.report import CheckResult
from pipeline.model.smoke import Check
from pipeline.model.value_comparison import (
    SHOWN_LIMIT,
    RecordedText,
    mismatch_is_final,
    readable,
)
from pipeline.sandbox import Instance
from pipeline.smoke.inspection import InspectedSubject, inspect_subject
from pipeline.smoke.network_probes import probe_http, probe_stream
from pipeline.smoke.probe_result import ProbeResult

_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.5
"""Seconds between attempts: short at first, because most servers are up in less than a second."""


def run_check(check: Check, instance: Instance, image: Image) -> CheckResult:
    """Run a check, of any kind but RESTART, and return its result.

    Asks until the answer is right, `check.within` milliseconds have passed, or the instance has ended. RESTART is
    more than a question. What is judged in the end is what is recorded.
    """
    begun = time.monotonic()
    deadline = begun + check.within / 1000
    why = ""
    if check.kind is CheckKind.STOP:
        answer = stop_instance(check, instance, check.signal or image.config.stop_signal)
    else:
        attempt = _attempt(check, instance, image)
        answer, why = repeat_until_right(attempt, check, instance, image.config, deadline)
    kept = record_answer(check, answer)
    wrong = judge(check, kept, image.config)
    took = round((time.monotonic() - begun) * 1000)
    return CheckResult(check.name, not wrong, took, readable(why or wrong) if wrong else "", kept)


def last_lines(log: bytes, limit: int = SHOWN_LIMIT) -> str:
    """The end of a log, for people."""
    return log[-limit:].decode(errors="replace").strip()


def describe_exit(instance: Instance) -> str:
    """Describe how an instance ended: its exit code, the kernel's reason, its last output.

    The reason is given if the kernel ended it.
    """
    # Waits for what it printed at last, too: the end is seen sooner than the log is read.
    code, killed = instance.wait(0), instance.usage().oom_kills
    why = ""
    if killed and code == 137:
        limit = instance.limits[MEMORY]
        why = f" (killed: out of memory{f', limit {limit / (1 << 20):g} MiB' if limit else ''})"
    return f"exit code {code}{why}; last log lines: {last_lines(instance.log) or 'none'}"


def stop_instance(check: Check, instance: Instance, stop_signal: str) -> CheckAnswer:
    """Send the signal and see how the instance ends."""
    if not instance.alive:
        return NoAnswer(f"the instance had already ended with {describe_exit(instance)}")
    name = stop_signal or DEFAULT_SIGNAL
    code = instance.stop(name, check.within / 1000)
    return StopAnswer(name, code, last_lines(instance.log))


def repeat_until_right(
    attempt: Callable[[float], ProbeResult], check: Check, instance: Instance, config: ImageConfig, deadline: float
) -> tuple[CheckAnswer, str]:
    """Repeat an attempt until its answer is right, the instance has ended, or time is over.

    Returns the answer that was right, or the last one that tells something, and why it was not asked for any longer.
    """
    pause = _FIRST_PAUSE
    told: tuple[CheckAnswer, str] | None = None
    while True:
        # Before the attempt: what an instance printed before it ended still counts.
        ended = not instance.alive
        seen = attempt(deadline)
        wrong = judge(check, seen.answer, config)
        if not wrong or seen.settled:
            return seen.answer, wrong
        if ended:
            why = f"the instance ended with {describe_exit(instance)}"
            return NoAnswer(why), why
        # An attempt that the deadline cuts off tells less than the one before it.
        told = told if seen.cut_off and told is not None else (seen.answer, wrong)
        left = deadline - time.monotonic()
        if left <= 0:
            return told[0], f"not within {check.within} ms: {told[1]}"
        instance.wait(min(pause, left))
        pause = min(pause * 1.5, _LAST_PAUSE)


def _attempt(check: Check, instance: Instance, image: Image) -> Callable[[float], ProbeResult]:
    match check.kind:
        case CheckKind.COMMAND:
            return lambda deadline: _command(check, instance, deadline)
        case CheckKind.PORT | CheckKind.SOCKET:
            return lambda deadline: probe_stream(check, instance, deadline)
        case CheckKind.HTTP:
            return lambda deadline: probe_http(check, instance, deadline)
        case CheckKind.LOG:
            return lambda _: _log(check, instance)
        case (
            CheckKind.FILE
            | CheckKind.PROCESS
            | CheckKind.LISTENING
            | CheckKind.ACCOUNT
            | CheckKind.PACKAGES
            | CheckKind.IMAGE
            | CheckKind.LICENSES
        ):
            subject = check.subject
            assert isinstance(subject, InspectedSubject), f"{check.kind} has no subject"
            return lambda _: inspect_subject(subject, instance, image)
        case CheckKind.RESTART | CheckKind.STOP:
            raise AssertionError(f"{check.kind} is no question that is asked again")
        case other:
            assert_never(other)


def _command(check: Check, instance: Instance, deadline: float) -> ProbeResult:
    outcome = instance.execute(
        check.command,
        stdin=check.stdin.encode(),
        user=check.user,
        timeout=max(0.001, deadline - time.monotonic()),
    )
    status = None if outcome.timed_out else outcome.status
    answer = CommandAnswer(status, RecordedText.of(outcome.stdout), RecordedText.of(outcome.stderr))
    return ProbeResult(answer, cut_off=outcome.timed_out)


def _log(check: Check, instance: Instance) -> ProbeResult:
    log = RecordedText.of(instance.log)
    return ProbeResult(LogAnswer(log), settled=mismatch_is_final(check.log, log.text))
