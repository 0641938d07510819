"""The `port` smoke check: a TCP port accepts a connection and answers as expected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import Attempt, CheckAnswer, CheckDeclaration
from pipeline.model.document_keys import ValueForm
from pipeline.model.value_comparison import (
    EMPTY_TEXT,
    RecordedText,
    quote_answer,
    record_text,
    recorded_mismatch,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class TalkAnswer(CheckAnswer):
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


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    said = probe.converse(check.port, check.socket, check.send.encode(), check.expect.stdout, deadline)
    return Attempt(TalkAnswer(RecordedText.of(said)))


def _plan(check: Check, port: int) -> Check:
    return replace(check, port=port)


DECLARATION = CheckDeclaration(
    name="port",
    rank=20,
    meaning="a port that is connected to",
    example=8080,
    form=ValueForm.PORT,
    plan=_plan,
    ready_meaning="a port that must accept connections",
    ready_example=3306,
    beside=frozenset({"expect", "send", "within"}),
    expects=frozenset({"stdout", "stdout_is"}),
    shows="what a port answers is",
    answer=TalkAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
    place=_place,
    latency_rank=2,
)
