"""Checks of the processes of the instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, list_names, subject_of
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    quote_answer,
    record_text,
    recorded_mismatch,
)
from pipeline.model.value_rules import Rule, Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


PROCESSES_MOST = 4096
"""Processes of an instance that are recorded: what a generous limit leaves it."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Processes of the instance that must run.

    Their name is `name`, their command line matches `command`, they run as `user`, as far as these are given; `count`
    holds of how many they are.
    """

    name: str = ""
    command: str = ""
    user: str = ""
    count: Rules = (Rule(least=1),)


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process: the kernel's name for it, its program, command line and user's number.

    The kernel's name has at most 15 characters.
    """

    name: str
    program: str
    command: RecordedText
    uid: int


@dataclass(frozen=True, slots=True)
class ProcessAnswer:
    """All processes of the instance.

    `user` is the number of the user that was asked for (None: of none).
    """

    user: int | None
    processes: tuple[SeenProcess, ...]


def _judge(check: Check, seen: ProcessAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(ProcessFacts, check)
    number = sum(_meets(process, facts, seen.user) for process in seen.processes)
    wrong = mismatch(facts.count, str(number), "the number of such processes", tell=True)
    if not wrong:
        return ""
    told = [
        f"{process.name} (user {process.uid}): {quote_answer(process.command.text, 80)}" for process in seen.processes
    ]
    return f"{wrong}; there are: {list_names(told)}"


def _meets(process: SeenProcess, facts: ProcessFacts, user: int | None) -> bool:
    # The kernel keeps 15 characters of a name; the program's own is in its command line.
    named = not facts.name or process.program == facts.name or process.name == facts.name[:15]
    return (
        named
        and not recorded_mismatch(_command_rules(facts), process.command, "")
        and (not facts.user or (user is not None and process.uid == user))
    )


def _command_rules(facts: ProcessFacts) -> Rules:
    return (Rule(matches=facts.command),) if facts.command else ()


def _record(check: Check, seen: ProcessAnswer) -> ProcessAnswer:
    rules = _command_rules(subject_of(ProcessFacts, check))
    kept = [replace(one, command=record_text(rules, one.command)) for one in seen.processes]
    return replace(seen, processes=tuple(kept))


DECLARATION = CheckDeclaration(ProcessAnswer, _judge, subject=ProcessFacts, record=_record)
