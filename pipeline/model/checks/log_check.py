"""The `log` smoke check: the instance's output matches or lacks patterns."""

from __future__ import annotations

import re
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
    printable,
)
from pipeline.model.document_keys import ValueForm
from pipeline.model.value_comparison import (
    SHOWN_LIMIT,
    RecordedText,
    mismatch_is_final,
    record_text,
    recorded_mismatch,
    unread_rest,
)
from pipeline.model.value_rules import Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

_LINES_MOST = 3
"""Lines that are drafted."""
_READY_WORDS = re.compile(r"(?i)\b(ready|listening|accept\w*|started|up|serving|running)\b")


@dataclass(frozen=True, slots=True)
class LogAnswer(CheckAnswer):
    """The log of the instance up to the check."""

    log: RecordedText


def _judge(check: Check, seen: LogAnswer, config: ImageConfig, ready: Check | None) -> str:
    log = seen.log
    wrong = recorded_mismatch(check.log, log, "the log")
    if not wrong:
        return ""
    return f"{wrong}; the log {'ends' if log.excerpts is None else 'begins'} with: {log.text[-SHOWN_LIMIT:].strip()}"


def _record(check: Check, seen: LogAnswer) -> LogAnswer:
    return LogAnswer(record_text(check.log, seen.log))


def _plan(check: Check, rules: Rules) -> Check:
    return replace(check, log=rules)


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    printed = probe.log
    log = RecordedText.of(printed)
    # Asked after the log, so that what was dropped meanwhile is noticed. No more of it will ever be read.
    full = probe.log_dropped > 0
    unread = unread_rest(check.log, printed, "the log", "let it print less, or check its log earlier") if full else ""
    return Attempt(LogAnswer(log), settled=full or mismatch_is_final(check.log, log.text), unread=unread)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    end = probe.log[-(1 << 16) :].decode(errors="replace")
    lines = [line.strip() for line in end.strip().splitlines()]
    told = [line for line in lines if _READY_WORDS.search(line) and printable(line)]
    tails = [_tail(line) for line in told or [line for line in lines if printable(line)][-1:]]
    for tail in list(dict.fromkeys(tails))[-_LINES_MOST:]:
        yield {"name": f"says {tail[:60]}", "log": _pattern(tail)}


def _tail(line: str) -> str:
    """Return the part of a log line after its date and tags."""
    return re.split(r"\]\s+|\s\|\s", line[:400])[-1] or line[:400]


def _pattern(text: str) -> str:
    """Return a regular expression for a log line, with any number for each number in it."""
    return re.sub(r"\d+", lambda _: r"\d+", re.escape(text)).replace(r"\ ", " ")


DECLARATION = CheckDeclaration(
    name="log",
    rank=50,
    meaning="the instance's output so far",
    example={"matches": "ready for connections", "lacks": "ERROR"},
    form=ValueForm.RULES,
    plan=_plan,
    ready_meaning="the instance's output",
    answer=LogAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
    draft=Drafting(5, _draft),
)
