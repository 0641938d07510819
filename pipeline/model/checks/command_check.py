"""Checks that run a command in the instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration
from pipeline.model.value_comparison import (
    RecordedText,
    quote_answer,
    record_text,
    recorded_mismatch,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """A command's exit status (None: it did not end in time) and what it printed."""

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


DECLARATION = CheckDeclaration(
    CommandAnswer,
    _judge,
    record=_record,
    beside=frozenset({"expect", "stdin", "user", "within"}),
    expects=frozenset({"exit_code", "stdout", "stdout_is", "stderr"}),
    shows="a command shows",
)
