"""Checks that send something to a port or a unix socket."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration
from pipeline.model.value_comparison import (
    EMPTY_TEXT,
    RecordedText,
    quote_answer,
    record_text,
    recorded_mismatch,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class TalkAnswer:
    """A port or socket took the connection, and sent this."""

    said: RecordedText = EMPTY_TEXT


def _judge(check: Check, seen: TalkAnswer, config: ImageConfig, ready: Check | None) -> str:
    said = seen.said
    wrong = recorded_mismatch(check.expect.stdout, said, "the answer")
    return f"{_place(check)}: {wrong}: {quote_answer(said.text)}" if wrong else ""


def _place(check: Check) -> str:
    return f"socket {check.socket}" if check.socket else f"port {check.port}"


def _record(check: Check, seen: TalkAnswer) -> TalkAnswer:
    return TalkAnswer(record_text(check.expect.stdout, seen.said))


PORT = CheckDeclaration(
    TalkAnswer,
    _judge,
    record=_record,
    place=_place,
    beside=frozenset({"expect", "send", "within"}),
    expects=frozenset({"stdout", "stdout_is"}),
    shows="what a port answers is",
)
SOCKET = replace(PORT, shows="what a socket answers is")
