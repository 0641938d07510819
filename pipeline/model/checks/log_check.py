"""Checks of what the instance prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration
from pipeline.model.value_comparison import (
    SHOWN_LIMIT,
    RecordedText,
    record_text,
    recorded_mismatch,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """The log of the instance up to the check."""

    log: RecordedText


def _judge(check: Check, seen: LogAnswer, config: ImageConfig, ready: Check | None) -> str:
    log = seen.log
    wrong = recorded_mismatch(check.log, log, "the log")
    if not wrong:
        return ""
    return f"{wrong}; it {'ends' if log.excerpts is None else 'begins'} with: {log.text[-SHOWN_LIMIT:].strip()}"


def _record(check: Check, seen: LogAnswer) -> LogAnswer:
    return LogAnswer(record_text(check.log, seen.log))


DECLARATION = CheckDeclaration(LogAnswer, _judge, record=_record)
