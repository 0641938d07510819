"""One question to one instance, asked again until the answer is right or its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.model.image import Image
from pipeline.model.smoke import Check, CheckKind, CheckResult, Expectation
from pipeline.sandbox import Instance, Outcome
from pipeline.smoke.answer import Answer
from pipeline.smoke.facts import look
from pipeline.smoke.talking import request, talk
from pipeline.smoke.values import SHOWN, differs, final, shown

_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.5
"""Seconds between attempts: short at first, because most servers are up in less than a second."""


def ask(check: Check, instance: Instance, image: Image) -> CheckResult:
    """Ask until the answer is right, `check.within` milliseconds have passed, or the instance has ended. For every
    kind but RESTART, which is more than a question."""
    begun = time.monotonic()
    deadline = begun + check.within / 1000
    if check.kind is CheckKind.STOP:
        answer = stop(check, instance, check.signal or image.config.stop_signal)
    else:
        answer = _until(_attempt(check, instance, image), check, instance, deadline)
    return CheckResult(check.name, answer.right, round((time.monotonic() - begun) * 1000), answer.detail)


def last_lines(log: bytes, limit: int = SHOWN) -> str:
    """The end of a log, for people."""
    return log[-limit:].decode(errors="replace").strip()


def how_it_ended(instance: Instance) -> str:
    """The exit code of an instance that has ended, why the kernel ended it if it did, and its last words."""
    code, killed = instance.exit_code, instance.usage().oom_kills
    why = " (killed for want of memory)" if killed and code == 137 else ""
    return f"exit code {code}{why}; its last words: {last_lines(instance.log) or '(none)'}"


def stop(check: Check, instance: Instance, stop_signal: str) -> Answer:
    """Send the signal; right if the instance ends in time with the expected exit code."""
    if not instance.alive:
        return Answer(False, f"the instance had ended before, with {how_it_ended(instance)}")
    name = stop_signal or "SIGTERM"
    code = instance.stop(name, check.within / 1000)
    if code is None:
        return Answer(False, f"it still runs {check.within} ms after {name}; {last_lines(instance.log)}")
    if check.expect.exit_code is not None and code != check.expect.exit_code:
        return Answer(
            False,
            f"exit code {code} after {name}, not {check.expect.exit_code}; {last_lines(instance.log)}",
        )
    return Answer(True)


def _until(attempt: Callable[[float], Answer], check: Check, instance: Instance, deadline: float) -> Answer:
    pause = _FIRST_PAUSE
    told = Answer(False)
    while True:
        # Before the attempt: what an instance printed before it ended still counts.
        ended = not instance.alive
        answer = attempt(deadline)
        if answer.right:
            return answer
        if answer.settled:
            return Answer(False, answer.detail)
        if ended:
            return Answer(False, f"the instance ended with {how_it_ended(instance)}")
        # An attempt that the deadline cuts off tells less than the one before it.
        told = told if answer.cut_off and told.detail else answer
        left = deadline - time.monotonic()
        if left <= 0:
            return Answer(False, f"not within {check.within} ms: {told.detail}")
        instance.wait(min(pause, left))
        pause = min(pause * 1.5, _LAST_PAUSE)


def _attempt(check: Check, instance: Instance, image: Image) -> Callable[[float], Answer]:
    match check.kind:
        case CheckKind.COMMAND:
            return lambda deadline: _command(check, instance, deadline)
        case CheckKind.PORT | CheckKind.SOCKET:
            return lambda deadline: talk(check, instance, deadline)
        case CheckKind.HTTP:
            return lambda deadline: request(check, instance, deadline)
        case CheckKind.LOG:
            return lambda _: _log(check, instance)
        case _:
            return lambda _: look(check.subject, instance, image)


def _command(check: Check, instance: Instance, deadline: float) -> Answer:
    outcome = instance.execute(
        check.command,
        stdin=check.stdin.encode(),
        user=check.user,
        timeout=max(0.001, deadline - time.monotonic()),
    )
    if outcome.timed_out:
        return Answer(False, f"the command did not end; {_printed(outcome)}", cut_off=True)
    wrong = _differs(check.expect, outcome)
    return Answer(not wrong, f"{wrong}; {_printed(outcome)}" if wrong else "")


def _differs(expect: Expectation, outcome: Outcome) -> str:
    if expect.exit_code is not None and outcome.status != expect.exit_code:
        return f"exit code {outcome.status}, not {expect.exit_code}"
    stdout, stderr = (text.decode(errors="replace") for text in (outcome.stdout, outcome.stderr))
    return differs(expect.stdout, stdout, "stdout") or differs(expect.stderr, stderr, "stderr")


def _log(check: Check, instance: Instance) -> Answer:
    log = instance.log.decode(errors="replace")
    wrong = differs(check.log, log, "the log")
    if not wrong:
        return Answer(True)
    return Answer(False, f"{wrong}; it ends with: {last_lines(instance.log)}", settled=final(check.log, log))


def _printed(outcome: Outcome) -> str:
    parts = [
        f"{name}: {shown(data)}"
        for name, data in (("stdout", outcome.stdout), ("stderr", outcome.stderr))
        if data.strip()
    ]
    return "; ".join(parts) or "it printed nothing"
