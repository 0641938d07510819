"""The declaration of a kind of check: its subject, its answer, its judgement and recording.

A module in `pipeline.model.checks` declares one kind. All of it is pure: who asks an image, and who judges a report
again, use the same. The kind's document is in `pipeline.recipes.check_schema`, its asking in `pipeline.smoke.probes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check

_AnswerT = TypeVar("_AnswerT")
_SubjectT = TypeVar("_SubjectT")

_NAMED = 12
"""Items of a longer list that a report names."""


class MismatchedAnswer(Exception):
    """A question has no subject of its kind, or an answer is of another kind."""


def _as_it_is(check: Check, seen: _AnswerT) -> _AnswerT:
    return seen


def _nowhere(check: Check) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class CheckDeclaration(Generic[_AnswerT]):
    """A kind of check.

    `judge` says what is wrong with an answer of type `answer` to a check about a `subject`; "" if nothing is. The
    config is the image's, the last argument what shows that it is back after a restart. `record` gives the answer as it
    is recorded: long texts as excerpts by which `judge` decides the same. `place` says where it asks, for people.
    `beside` are the keys that may stand beside the kind's own in a recipe, `expects` those under `expect`, and `shows`
    begins the sentence that names them.
    """

    answer: type[_AnswerT]
    judge: Callable[[Check, _AnswerT, ImageConfig, Check | None], str]
    subject: type | None = None
    record: Callable[[Check, _AnswerT], _AnswerT] = _as_it_is
    place: Callable[[Check], str] = _nowhere
    beside: frozenset[str] = frozenset({"within"})
    expects: frozenset[str] = frozenset()
    shows: str = ""


def subject_of(kind: type[_SubjectT], check: Check) -> _SubjectT:
    """The subject of a check. Raises MismatchedAnswer."""
    if not isinstance(check.subject, kind):
        raise MismatchedAnswer
    return check.subject


def list_names(names: Sequence[str]) -> str:
    """The first names of a list, for people, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
