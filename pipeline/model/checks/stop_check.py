"""The `stop` smoke check: the instance ends in time with the expected exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    DraftedCheck,
    Drafting,
    Effect,
)
from pipeline.model.document_keys import ValueForm, document_key
from pipeline.model.quantities import WholeNumber

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

_DRAFTING = 20.0
"""Seconds that an instance gets to end while checks are drafted."""


DEFAULT_SIGNAL = "SIGTERM"
"""The stop signal of an image that names none (config.md, StopSignal)."""


@dataclass(frozen=True, slots=True)
class StopSettings:
    """The values of the mapping, which become those of the check."""

    within: int = document_key(ValueForm.DURATION, "how long it may take", 20_000, example="20s")
    exit_code: int = document_key(WholeNumber(0, 255), "the exit status it must have", 0)
    signal: str = document_key(ValueForm.SIGNAL, "another signal than the image's", "", example="SIGINT")


@dataclass(frozen=True, slots=True)
class StopAnswer(CheckAnswer):
    """The signal that was sent, and the exit code (None: it ran on).

    `words`: the last that it printed.
    """

    signal: str
    exit_code: int | None
    words: str = ""


def _judge(check: Check, seen: StopAnswer, config: ImageConfig, ready: Check | None) -> str:
    wanted = check.signal or config.stop_signal or DEFAULT_SIGNAL
    if seen.signal != wanted:
        return f"it was stopped with {seen.signal}, not with {wanted}"
    if seen.exit_code is None:
        why = "its first process has to handle the signal, or 'stop_signal' to name another"
        return f"it still runs {check.within} ms after {seen.signal} ({why}); {_last_lines(seen)}"
    if check.expect.exit_code is not None and seen.exit_code != check.expect.exit_code:
        return f"exit code {seen.exit_code} after {seen.signal}, not {check.expect.exit_code}; {_last_lines(seen)}"
    return ""


def _last_lines(seen: StopAnswer) -> str:
    return f"last log lines: {seen.words or 'none'}"


def _plan(check: Check, settings: StopSettings) -> Check:
    expect = replace(check.expect, exit_code=settings.exit_code)
    return replace(check, within=settings.within, signal=settings.signal, expect=expect)


def stopped(check: Check, probe: Probe, stop_signal: str) -> StopAnswer:
    """Send a signal and wait for the instance's end. Raises Unanswered if it had ended before."""
    name = stop_signal or DEFAULT_SIGNAL
    end = probe.stop(name, check.within / 1000)
    return StopAnswer(name, end.exit_code, end.last_lines)


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    return Attempt(stopped(check, probe, check.signal or probe.image.config.stop_signal), settled=True)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    begun = time.monotonic()
    code = probe.stop(probe.image.config.stop_signal, _DRAFTING).exit_code
    if code is not None:
        took = max(1, round(3 * (time.monotonic() - begun)))
        yield {"name": "stops", "stop": {"within": f"{max(10, took)}s", "exit_code": code}}


DECLARATION = CheckDeclaration(
    name="stop",
    rank=140,
    meaning="stop the instance; must be the last check",
    example={"within": "20s"},
    form=StopSettings,
    title="stop",
    prose="The image's end when it gets its stop signal.",
    plan=_plan,
    beside=frozenset(),
    answer=StopAnswer,
    ask=_ask,
    judge=_judge,
    effect=Effect.ENDS,
    draft=Drafting(8, _draft),
)
