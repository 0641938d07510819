"""Registry of the kinds of smoke checks, one module each: asking and judging by kind.

To add the kind `name`, add a module NAME_check; `pipeline.model.check_kind` tells what it declares.

An answer is what was observed, without a judgement; it is recorded, and sufficient to judge it again, by the same code
as in the smoke test. Texts are `RecordedText`, exact to the control character; user and group IDs are the image's own.
Every kind of check has its type of answer, or `NoAnswer`.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    MismatchedAnswer,
    NoAnswer,
    Subject,
)
from pipeline.model.probe import Unanswered

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

__all__ = [
    "ANSWERS",
    "CHECK_KINDS",
    "SUBJECTS",
    "CheckAnswer",
    "CheckKind",
    "MountsAnswer",
    "NoAnswer",
    "Subject",
    "attempt",
    "declaration",
    "judge",
    "judge_mounts",
    "record_answer",
]

_SCRATCH = ("/dev", "/proc", "/run", "/tmp")  # noqa: S108 - in the container
"""Paths at which every instance may write."""

_MODULE_SUFFIX = "_check"


@dataclass(frozen=True, slots=True)
class MountsAnswer(CheckAnswer):
    """The mount points at which the instance could write."""

    writable: tuple[str, ...]


def _declared() -> tuple[CheckDeclaration[Any, Any], ...]:
    found: list[CheckDeclaration[Any, Any]] = []
    for module in pkgutil.iter_modules(__path__):
        declared = importlib.import_module(f"{__name__}.{module.name}").DECLARATION
        assert isinstance(declared, CheckDeclaration), f"{module.name} declares no kind of check"
        assert module.name == declared.name + _MODULE_SUFFIX, f"{module.name} declares '{declared.name}'"
        found.append(declared)
    return tuple(sorted(found, key=lambda kind: (kind.rank, kind.name)))


CHECK_KINDS = _declared()
"""All kinds, in the order of documents."""

if TYPE_CHECKING:

    class CheckKind(StrEnum):
        """Kinds of checks, whose members are known only when all modules are loaded."""

else:
    CheckKind = StrEnum("CheckKind", {kind.name.upper(): kind.name for kind in CHECK_KINDS})

SUBJECTS: tuple[type, ...] = tuple(dict.fromkeys(kind.subject for kind in CHECK_KINDS if kind.subject is not None))
ANSWERS: tuple[type, ...] = (NoAnswer, *dict.fromkeys(kind.answer for kind in CHECK_KINDS), MountsAnswer)

_BY_NAME = {kind.name: kind for kind in CHECK_KINDS}


def declaration(kind: CheckKind) -> CheckDeclaration[Any, Any]:
    """Return the declaration of a kind."""
    return _BY_NAME[kind]


def attempt(check: Check, probe: Probe, deadline: float) -> Attempt:
    """Ask a check once.

    A `NoAnswer` with the reason where the probe raises Unanswered, or an answer that is right so far was not read to
    its end.
    """
    kind = declaration(check.kind)
    try:
        seen = kind.ask(check, probe, deadline)
    except Unanswered as error:
        return Attempt(_no_answer(check, str(error)), cut_off=error.timed_out, settled=error.settled)
    if seen.unread and not judge(check, seen.answer, probe.image.config):
        return replace(seen, answer=_no_answer(check, seen.unread), settled=True)
    return seen


def _no_answer(check: Check, why: str) -> NoAnswer:
    where = declaration(check.kind).place(check)
    return NoAnswer(f"{where}: {why}" if where else why)


def judge(check: Check, answer: CheckAnswer, config: ImageConfig, ready: Check | None = None) -> str:
    """Return what is wrong with an answer, for people; empty if it is right.

    `config` is of the image that was asked; `ready` is the readiness check that is repeated after a restart.
    """
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    kind = declaration(check.kind)
    try:
        if not isinstance(answer, kind.answer):
            raise MismatchedAnswer
        return kind.judge(check, answer, config, ready)
    except MismatchedAnswer:
        return f"the recorded result is not one of a '{check.kind}' check"


def judge_mounts(answer: CheckAnswer, config: ImageConfig) -> str:
    """Return which mounts are writable but should not be, for people; "" if none is.

    Volumes and scratch file systems may be.
    """
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    if not isinstance(answer, MountsAnswer):
        return "the recorded result is not a list of mounts"
    allowed = (*_SCRATCH, *config.volumes)
    wrong = [
        where
        for where in answer.writable
        if not any(f"{where}/".startswith(f"{place.rstrip('/')}/") for place in allowed)
    ]
    return f"writable: {', '.join(wrong)}" if wrong else ""


def record_answer(check: Check, answer: CheckAnswer) -> CheckAnswer:
    """Return the answer to record: long texts as excerpts, on which `judge` decides the same."""
    kind = declaration(check.kind)
    excerpts: CheckAnswer = answer
    if isinstance(answer, kind.answer):
        with contextlib.suppress(MismatchedAnswer):
            excerpts = kind.record(check, answer)
    return excerpts
