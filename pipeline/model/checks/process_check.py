"""The `process` smoke check: the number of running processes that match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.account_files import account_names
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    DraftedCheck,
    Drafting,
    NoAnswer,
    Subject,
    list_names,
    printable,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    quote_answer,
    readable,
    record_text,
    recorded_mismatch,
)
from pipeline.model.value_rules import Rule, Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe, RunningProcess
    from pipeline.model.smoke import Check

_NAME_MOST = 15
"""Characters that the kernel keeps of a process's name."""


PROCESSES_MOST = 4096
"""Processes of an instance that are recorded: what a generous limit leaves it."""


@dataclass(frozen=True, slots=True)
class ProcessFacts(Subject):
    """Processes of the instance that must run.

    Their name is `name`, their command line matches `command`, they run as `user`, as far as these are given; their
    number must meet `count`.
    """

    name: str = document_key(ValueForm.LINE, "the program's name", "", example="nginx")
    command: str = document_key(ValueForm.PATTERN, "a pattern in its command line", "", example="worker process")
    user: str = document_key(ValueForm.OWNER, "the user that it runs as, by name or number", "", example="nginx")
    count: Rules = document_key(
        ValueForm.RULES, "how many; default: at least 1", (Rule(least=1),), example={"min": 2, "max": 8}
    )


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
class ProcessAnswer(CheckAnswer):
    """All processes of the instance.

    `user` is the number of the user that was asked for (None: of none).
    """

    user: int | None
    processes: tuple[SeenProcess, ...]


def _judge(check: Check, seen: ProcessAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(ProcessFacts, check)
    number = sum(_meets(process, facts, seen.user) for process in seen.processes)
    wrong = mismatch(facts.count, str(number), "the number of matching processes", tell=True)
    if not wrong:
        return ""
    told = [
        f"{process.name} (user {process.uid}): {quote_answer(process.command.text, 80)}" for process in seen.processes
    ]
    return f"{wrong}; running: {list_names(told)}"


def _meets(process: SeenProcess, facts: ProcessFacts, user: int | None) -> bool:
    # The kernel keeps 15 characters of a name; the program's own is in its command line.
    named = not facts.name or process.program == facts.name or process.name == facts.name[:_NAME_MOST]
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


def _refuse(facts: ProcessFacts, given: frozenset[str]) -> Iterator[Contradiction]:
    if not given:
        yield Contradiction("check-empty", "no condition on processes is given", "write name, command, user or count")


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    facts = subject_of(ProcessFacts, check)
    uid = probe.user_number(facts.user) if facts.user else None
    # Counted first, because reading them one by one takes long.
    count = probe.process_count()
    if count > PROCESSES_MOST:
        return Attempt(NoAnswer(f"the instance has {count} processes, more than the limit of {PROCESSES_MOST}"))
    seen = [
        SeenProcess(readable(one.name), readable(one.program), RecordedText.of(one.command), one.uid)
        for one in probe.processes()
    ]
    return Attempt(ProcessAnswer(uid, tuple(seen)))


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    names = account_names(probe.files, "/etc/passwd")
    counted = Counter((_drafted_name(process), process.uid) for process in probe.processes())
    for (name, uid), count in sorted(counted.items()):
        if printable(name):
            user = names.get(uid, str(uid))
            facts: DraftedCheck = {"name": name, "user": user, "count": {"min": 1, "max": max(2 * count, 2)}}
            yield {"name": f"runs {name} as {user}", "process": facts}


def _drafted_name(process: RunningProcess) -> str:
    """Return the kernel's name, or if that is cut off the program's (it may be any text)."""
    cut_off = len(process.name) == _NAME_MOST and process.program.startswith(process.name)
    return process.program if cut_off else process.name


DECLARATION = CheckDeclaration(
    name="process",
    rank=70,
    meaning="processes",
    example={"name": "nginx", "count": {"min": 2}},
    form=ProcessFacts,
    title="process",
    prose="Processes of the instance; those are counted that meet all that is given.",
    refuse=_refuse,
    ready_meaning="processes that must run",
    answer=ProcessAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
    draft=Drafting(3, _draft),
)
