"""One question to one instance, asked again until the answer is right or its time is over."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.model.smoke import Check, CheckKind, CheckResult, Expectation
from pipeline.sandbox import Instance, Outcome

_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.5
"""Seconds between attempts: short at first, because most servers are up in less than a second."""

_ANSWER_LIMIT = 1 << 20
"""Bytes read of a port's answer."""

_SHOWN = 2000
"""Characters of an answer that a report shows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt came to; `detail` says why not. `cut_off`: its time was over before it could tell."""

    right: bool
    detail: str = ""
    cut_off: bool = False


def ask(check: Check, instance: Instance, stop_signal: str) -> CheckResult:
    """Ask until the answer is right, `check.within` milliseconds have passed, or the instance has ended."""
    begun = time.monotonic()
    deadline = begun + check.within / 1000
    if check.kind is CheckKind.STOP:
        answer = _stop(check, instance, stop_signal)
    else:
        answer = _until(_ATTEMPTS[check.kind], check, instance, deadline)
    return CheckResult(check.name, answer.right, round((time.monotonic() - begun) * 1000), answer.detail)


def last_lines(log: bytes, limit: int = _SHOWN) -> str:
    """The end of a log, for people."""
    return log[-limit:].decode(errors="replace").strip()


def _until(
    attempt: Callable[[Check, Instance, float], Answer], check: Check, instance: Instance, deadline: float
) -> Answer:
    pause = _FIRST_PAUSE
    told = Answer(False)
    while True:
        # Before the attempt: what an instance printed before it ended still counts.
        ended = not instance.alive
        answer = attempt(check, instance, deadline)
        if answer.right:
            return answer
        if ended:
            return Answer(
                False,
                f"the instance ended with exit code {instance.exit_code}; "
                f"its last words: {last_lines(instance.log) or '(none)'}",
            )
        # An attempt that the deadline cuts off tells less than the one before it.
        told = told if answer.cut_off and told.detail else answer
        left = deadline - time.monotonic()
        if left <= 0:
            return Answer(False, f"not within {check.within} ms: {told.detail}")
        instance.wait(min(pause, left))
        pause = min(pause * 1.5, _LAST_PAUSE)


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
    stdout, stderr = (text.decode(errors="replace") for text in (outcome.stdout, outcome.stderr))
    if expect.exit_code is not None and outcome.status != expect.exit_code:
        return f"exit code {outcome.status}, not {expect.exit_code}"
    if expect.stdout is not None and not _found(expect.stdout, stdout):
        return f"stdout does not match '{expect.stdout}'"
    if expect.stdout_is is not None and stdout.strip() != expect.stdout_is.strip():
        return f"stdout is not '{expect.stdout_is}'"
    if expect.stderr is not None and not _found(expect.stderr, stderr):
        return f"stderr does not match '{expect.stderr}'"
    return ""


def _port(check: Check, instance: Instance, deadline: float) -> Answer:
    answer = b""
    try:
        with instance.connect(check.port, timeout=max(0.001, deadline - time.monotonic())) as connection:
            if check.send:
                connection.sendall(check.send.encode())
            if check.expect.stdout is None:
                return Answer(True)
            while len(answer) < _ANSWER_LIMIT:
                if _found(check.expect.stdout, answer.decode(errors="replace")):
                    return Answer(True)
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
    except OSError as error:
        said = f", after {_shown(answer)}" if answer else ""
        return Answer(False, f"port {check.port}: {error}{said}")
    return Answer(False, f"port {check.port}: the answer does not match '{check.expect.stdout}': {_shown(answer)}")


def _log(check: Check, instance: Instance, deadline: float) -> Answer:
    log = instance.log
    if _found(check.pattern, log.decode(errors="replace")):
        return Answer(True)
    return Answer(False, f"the log does not match '{check.pattern}'; it ends with: {last_lines(log)}")


def _stop(check: Check, instance: Instance, stop_signal: str) -> Answer:
    if not instance.alive:
        return Answer(
            False,
            f"the instance had ended before, with exit code {instance.exit_code}; "
            f"its last words: {last_lines(instance.log) or '(none)'}",
        )
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


_ATTEMPTS = {CheckKind.COMMAND: _command, CheckKind.PORT: _port, CheckKind.LOG: _log}


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.MULTILINE) is not None


def _printed(outcome: Outcome) -> str:
    parts = [
        f"{name}: {_shown(data)}"
        for name, data in (("stdout", outcome.stdout), ("stderr", outcome.stderr))
        if data.strip()
    ]
    return "; ".join(parts) or "it printed nothing"


def _shown(data: bytes) -> str:
    text = data.decode(errors="replace").strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
