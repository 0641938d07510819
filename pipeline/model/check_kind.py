"""Data classes that declare a kind of smoke check: recipe form, asking, judging, drafting.

A module in `pipeline.model.checks` declares one kind. It is pure except for the `Probe` that it asks, so that a report
can be judged again by the same code as in the smoke test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.document_keys import Choice, DocumentForm
from pipeline.model.json_form import OneOf
from pipeline.model.value_rules import Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

_LISTED_MOST = 12
"""Items of a longer list that a message names."""


class Subject(OneOf):
    """The subject of a check, which a dataclass of each kind derives from."""

    __slots__ = ()

    @classmethod
    def kinds(cls) -> tuple[type, ...]:
        """Return the subjects of all declared kinds."""
        # Here and not above, because they are declared with what is in this module.
        from pipeline.model.checks import SUBJECTS

        return SUBJECTS


class CheckAnswer(OneOf):
    """The answer to a check, which a dataclass of each kind derives from."""

    __slots__ = ()

    @classmethod
    def kinds(cls) -> tuple[type, ...]:
        """Return the answer classes of all declared kinds, and those that belong to no kind."""
        from pipeline.model.checks import ANSWERS

        return ANSWERS


_AnswerT = TypeVar("_AnswerT", bound=CheckAnswer)
_SubjectT = TypeVar("_SubjectT")
_WantedT = TypeVar("_WantedT")


@dataclass(frozen=True, slots=True)
class NoAnswer(CheckAnswer):
    """There was no usable answer, for the reason `reason`. It never passes."""

    reason: str


class MismatchedAnswer(Exception):
    """A check's subject, or an answer, is not of the type that its kind declares."""


class Effect(Enum):
    """Effects of a check on the instance."""

    NONE = auto()
    ENDS = auto()
    RESTARTS = auto()


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected answer to a check.

    `exit_code` and `stderr` are a command's; `stdout` is what a command prints or a port sends; `status`, `headers` (by
    name) and `body` are of HTTP.
    """

    exit_code: int | None = 0
    stdout: Rules = ()
    stderr: Rules = ()
    status: Rules = ()
    headers: tuple[tuple[str, Rules], ...] = ()
    body: Rules = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """The answer of one attempt, not judged yet.

    `cut_off`: the deadline passed before the answer was complete. `settled`: asking again would not change it.
    `unread`: why an answer that is right so far shows nothing, as the part that was not read may be wrong; or "".
    """

    answer: CheckAnswer
    cut_off: bool = False
    settled: bool = False
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """An error in a check's values in a recipe, at the key `key` ("": the check as a whole)."""

    code: str
    message: str
    hint: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class ShortForm:
    """Short forms of a mapping: `word` for an empty one, a bare list for one with the key `key`."""

    word: str
    key: str


DraftedCheck = dict[str, object]
"""A check as it stands in a recipe."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """The drafting of checks from a running instance, in the order of `order`."""

    order: int
    make: Callable[[Probe], Iterator[DraftedCheck]]


def _unchanged(check: Check, seen: _AnswerT) -> _AnswerT:
    return seen


def _no_place(check: Check) -> str:
    return ""


def _with_subject(check: Check, subject: object) -> Check:
    assert isinstance(subject, Subject), f"{check.kind}: {type(subject).__name__} is no Subject"
    return check.about(subject)


def _no_contradictions(asked: object, given: frozenset[str]) -> Iterator[Contradiction]:
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDeclaration(Generic[_SubjectT, _AnswerT]):
    """A kind of check; its module is called NAME_check.

    In a recipe it is the key `name`, with `meaning` and `example` in the reference; kinds stand there in the order of
    `rank`. `form` is that of its value: a dataclass whose fields are keys of a mapping (which `title` and `prose`
    describe), or the form of a bare value. `short` writes out what stands for such a mapping, `refuse` says what is
    wrong with the combination of its values and given keys, and `plan` puts them into the check, by default as its
    subject. With a `ready_meaning` it can be the sign that an instance is ready.

    `beside` are the keys that may stand beside the kind's own, `expects` those under `expect`, and `shows` begins the
    sentence that names them; `expected` and `within` (milliseconds; None: as for other checks) are the defaults.

    `ask` asks once, until a deadline; it raises Unanswered, and nothing else but `SmokeError`. `judge` says what is
    wrong with an answer of type `answer`; "" if nothing is. Its third argument is the image's config, the fourth the
    readiness check that is repeated after a restart. `record` returns the answer with long texts as excerpts by which
    `judge` decides the same. `place` names the port or path that it asks, for people. Latency can be measured by kinds
    with a `latency_rank` (0: not), the least first. `draft` drafts such checks.
    """

    name: str
    rank: int
    meaning: str
    example: object
    form: type[_SubjectT] | DocumentForm
    answer: type[_AnswerT]
    ask: Callable[[Check, Probe, float], Attempt]
    judge: Callable[[Check, _AnswerT, ImageConfig, Check | None], str]
    title: str = ""
    prose: str = ""
    short: ShortForm | None = None
    refuse: Callable[[_SubjectT, frozenset[str]], Iterator[Contradiction]] = _no_contradictions
    plan: Callable[[Check, _SubjectT], Check] = _with_subject
    ready_meaning: str = ""
    ready_example: object = None
    beside: frozenset[str] = frozenset({"within"})
    expects: frozenset[str] = frozenset()
    shows: str = ""
    expected: Expectation = Expectation(exit_code=None)
    within: int | None = None
    record: Callable[[Check, _AnswerT], _AnswerT] = _unchanged
    place: Callable[[Check], str] = _no_place
    effect: Effect = Effect.NONE
    latency_rank: int = 0
    draft: Drafting | None = None

    @property
    def subject(self) -> type[Subject] | None:
        """The type of its subject; None if its checks have none."""
        made = self.form.words if isinstance(self.form, Choice) else self.form
        return made if isinstance(made, type) and issubclass(made, Subject) else None


def subject_of(kind: type[_WantedT], check: Check) -> _WantedT:
    """Return the subject of a check. Raises MismatchedAnswer."""
    if not isinstance(check.subject, kind):
        raise MismatchedAnswer
    return check.subject


def list_names(names: Sequence[str]) -> str:
    """Return the first names of a list, for people, and how many more there are."""
    return ", ".join(names[:_LISTED_MOST]) + (
        f" and {len(names) - _LISTED_MOST} more" if len(names) > _LISTED_MOST else ""
    )


def printable(text: str) -> bool:
    """Return whether a text can be written into a recipe verbatim.

    Invalid UTF-8, control characters and templates cannot.
    """
    return bool(text) and text.isprintable() and "{{" not in text and "{%" not in text and "{#" not in text
