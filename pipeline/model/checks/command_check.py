"""The `command` smoke check: a command in the instance exits and prints as expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    Expectation,
)
from pipeline.model.document_keys import ValueForm
from pipeline.model.value_comparison import (
    RecordedText,
    quote_answer,
    record_text,
    recorded_mismatch,
    unread_rest,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class CommandAnswer(CheckAnswer):
    """A command's exit status (None: it did not stop in time) and what it printed."""

    status: int | None
    stdout: RecordedText
    stderr: RecordedText


def _judge(check: Check, seen: CommandAnswer, config: ImageConfig, ready: Check | None) -> str:
    expect = check.expect
    if seen.status is None:
        wrong = "the command did not end"
    elif expect.exit_code is not None and seen.status != expect.exit_code:
        wrong = f"exit code {seen.status}, not {expect.exit_code}"
    else:
        wrong = recorded_mismatch(expect.stdout, seen.stdout, "stdout") or recorded_mismatch(
            expect.stderr, seen.stderr, "stderr"
        )
    if not wrong:
        return ""
    streams = (("stdout", seen.stdout.text), ("stderr", seen.stderr.text))
    printed = "; ".join(f"{name}: {quote_answer(text)}" for name, text in streams if text.strip())
    return f"{wrong}; {printed or 'it printed nothing'}"


def _record(check: Check, seen: CommandAnswer) -> CommandAnswer:
    expect = check.expect
    return replace(seen, stdout=record_text(expect.stdout, seen.stdout), stderr=record_text(expect.stderr, seen.stderr))


def _refuse(words: tuple[str, ...], given: frozenset[str]) -> Iterator[Contradiction]:
    if not words:
        yield Contradiction("list-empty", "the command is empty", "write a program and its arguments")


def _plan(check: Check, words: tuple[str, ...]) -> Check:
    return replace(check, command=words)


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    outcome = probe.execute(check.command, stdin=check.stdin.encode(), user=check.user, deadline=deadline)
    answer = CommandAnswer(outcome.status, RecordedText.of(outcome.stdout), RecordedText.of(outcome.stderr))
    unread = [
        unread_rest(rules, read, what, "let the command print less")
        for rules, read, what, dropped in (
            (check.expect.stdout, outcome.stdout, "stdout", outcome.stdout_dropped),
            (check.expect.stderr, outcome.stderr, "stderr", outcome.stderr_dropped),
        )
        if dropped
    ]
    return Attempt(answer, cut_off=outcome.status is None, unread="; ".join(filter(None, unread)))


DECLARATION = CheckDeclaration(
    name="command",
    rank=10,
    meaning="a command that is run in the instance",
    example=["redis-cli", "ping"],
    form=ValueForm.WORDS,
    refuse=_refuse,
    plan=_plan,
    ready_meaning="a command that must succeed",
    beside=frozenset({"expect", "stdin", "user", "within"}),
    expects=frozenset({"exit_code", "stdout", "stdout_is", "stderr"}),
    shows="a command shows",
    expected=Expectation(exit_code=0),
    answer=CommandAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
)
