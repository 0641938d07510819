"""Progress messages from workers to the client: their plain form, parsing and bounds."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import TypeVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.nightly.executors.progress_ipc import EventKind, ProgressEvent

_T = TypeVar("_T", str, int, bool)


EVENT_TOPIC = "relbuild"
"""Topic of all nights' events: the scheduler keeps the last events of every topic, so one topic is bounded."""


EVENTS_LIMIT = 256
"""Events in one message; more go in several."""


_WORD_LIMIT, _TEXT_LIMIT = 200, 4000
"""Characters of a name, and of a label or a warning: an error with its hint has some hundred."""


_AMOUNT_MOST = 1 << 62


@dataclass(frozen=True, slots=True)
class ProgressMessage:
    """A worker's message with progress events of a running task.

    `attempt` identifies one start of the task. It is sent as plain data, because the scheduler keeps it.
    """

    night: str
    name: str
    attempt: str
    worker: str
    events: tuple[ProgressEvent, ...]

    def plain(self) -> list[object]:
        """Return the message as lists, texts and numbers."""
        events = [[_plain(value) for value in astuple(event)] for event in self.events]
        return [self.night, self.name, self.attempt, self.worker, events]

    @classmethod
    def parse(cls, said: object) -> ProgressMessage:
        """Parse a message from the form that `plain` returns.

        Raises ValueError for any other form: any client of the scheduler can send anything.
        """
        if not isinstance(said, list | tuple) or len(said) != len(fields(cls)):
            raise ValueError("invalid message of a worker")
        night, name, attempt, worker, events = said
        if not isinstance(events, list | tuple) or len(events) > EVENTS_LIMIT:
            raise ValueError("it has none, or too many events")
        return cls(
            _checked(night, str, _WORD_LIMIT),
            _checked(name, str, _WORD_LIMIT),
            _checked(attempt, str, _WORD_LIMIT),
            _checked(worker, str, _WORD_LIMIT),
            tuple(_event(event) for event in events),
        )

    @classmethod
    def of_night(cls, event: object, night: str) -> ProgressMessage | None:
        """Parse an event of the scheduler's topic, (time, message).

        Returns None if it is another night's, or no worker's.
        """
        try:
            assert isinstance(event, list | tuple)
            _, said = event
            return cls.parse(said) if said[0] == night else None
        except (AssertionError, ValueError, TypeError, LookupError):
            return None


def _event(said: object) -> ProgressEvent:
    if not isinstance(said, list | tuple) or len(said) != len(fields(ProgressEvent)):
        raise ValueError("it has an invalid event")
    kind, number, stage, text, amount, unit, failed = said
    return ProgressEvent(
        EventKind(_checked(kind, str, _WORD_LIMIT)),
        _checked(number, int, _AMOUNT_MOST),
        _checked(stage, str, _WORD_LIMIT),
        _checked(text, str, _TEXT_LIMIT),
        None if amount is None else _checked(amount, int, _AMOUNT_MOST),
        _checked(unit, str, _WORD_LIMIT),
        _checked(failed, bool, 1),
    )


def _checked(value: object, kind: type[_T], most: int) -> _T:
    """Return a value of exactly that type; at most `most` (characters, or 0 to that number)."""
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} is not {kind.__name__}")
    assert isinstance(value, kind)
    if (len(value) if isinstance(value, str) else value if isinstance(value, int) else 0) not in range(most + 1):
        raise ValueError("it is beyond its bound")
    return value


def _plain(value: object) -> object:
    """Return a value with texts made valid UTF-8 (names of files may not be) and cut."""
    return str(value)[:_TEXT_LIMIT].encode(errors="replace").decode() if isinstance(value, str) else value
