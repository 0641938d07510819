"""The `restart` smoke check: the instance is ready again on the same volumes.

`pipeline.smoke.lifecycle` stops it, starts it again and repeats the readiness check; here it is declared and judged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Effect,
    Subject,
)
from pipeline.model.document_keys import Choice

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

KILLED_EXIT_CODE = 137
"""Exit status of one that SIGKILL ended."""


class Restart(Subject, StrEnum):
    """Ways to end an instance before it is started again on the same volumes."""

    SAME_DATA = "same-data"
    AFTER_KILL = "after-kill"


@dataclass(frozen=True, slots=True)
class RestartAnswer(CheckAnswer):
    """The end and the new start of an instance.

    `how` it was ended, its exit code then, and what it answered to the question whether it is ready, after it was
    started again (None: nothing asks that).
    """

    how: Restart
    exit_code: int | None
    ready: CheckAnswer | None


def _judge(check: Check, seen: RestartAnswer, config: ImageConfig, ready: Check | None) -> str:
    # Here and not above: another check is judged, whatever its kind.
    from pipeline.model.checks import judge

    if seen.how is not check.subject:
        return f"it was restarted in another way: {seen.how}"
    if seen.exit_code is None:
        return "it did not stop"
    if seen.how is Restart.AFTER_KILL and seen.exit_code != KILLED_EXIT_CODE:
        return f"it was not killed but ended with exit code {seen.exit_code}"
    if ready is None:
        return ""
    if seen.ready is None:
        return "its readiness after the restart was not recorded"
    wrong = judge(ready, seen.ready, config)
    return f"not ready after the restart: {wrong}" if wrong else ""


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    raise AssertionError(f"{check.kind} is no question that is asked again")


DECLARATION: CheckDeclaration[Restart, RestartAnswer] = CheckDeclaration(
    name="restart",
    rank=130,
    meaning="`same-data`: stop, start again on the same volumes, and wait until it is ready; `after-kill`: "
    "the same after SIGKILL. Checks that stand below are asked of the new start; `within` is for the stop "
    "(default 30s)",
    example="same-data",
    form=Choice(Restart, "a way to restart"),
    # More than checks get, because databases flush.
    within=30_000,
    answer=RestartAnswer,
    ask=_ask,
    judge=_judge,
    effect=Effect.RESTARTS,
)
