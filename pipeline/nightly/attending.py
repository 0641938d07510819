"""The worker's side of a cluster.

What a worker says of itself when it joins, and the one function that it is given.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields, replace
from typing import TypeVar

import distributed
from dask.typing import Key
from distributed.core import Status

import pipeline
from pipeline.digest import Digest, canonical_json
from pipeline.nightly.crew import LocalCrew, Needs, Place
from pipeline.nightly.ordering import At, Order, do_here
from pipeline.nightly.own_code import code_digest
from pipeline.nightly.relaying import Event, Kind, Relay
from pipeline.nightly.task_result import result_bytes

T = TypeVar("T", str, int, bool)

TOPIC = "relbuild"
"""The scheduler keeps the last events of every topic for as long as it lives: one topic for all nights is bounded."""

EVENTS_LIMIT = 256
"""Events in one message; more go in several."""

_WORD_LIMIT, _TEXT_LIMIT = 200, 4000
"""Characters of a name, and of a label or a warning: an error with its hint has some hundred."""

_AMOUNT_MOST = 1 << 62

CODE, ARCH, CONTAINERS, MEMORY = "RELBUILD", "ARCH", "CONTAINERS", "MEMORY"
"""Dask's names of what workers offer and tasks take; the first two are followed by `-` and which."""

_PLUGIN = "relbuild"
_PAUSE = 0.1
"""Seconds between two messages of one task, and between two looks whether it is still wanted."""

_DECIDING = ("zstandard", "deflate", "rpm", "solv", "Jinja2", "PyYAML", "cryptography", "distributed")
"""Distributions whose version decides what a task's bytes are, or how it is handed over."""


@functools.cache
def code() -> str:
    """Return the name of this relbuild's code.

    It names its version, and the digest of its files, of Python's version and of the versions of what its bytes depend
    on. Two that are named alike do the same with the same task.
    """
    versions = {name: importlib.metadata.version(name) for name in _DECIDING}
    python = ".".join(map(str, sys.version_info[:2]))
    whole = Digest.of(canonical_json({"files": str(code_digest()), "python": python, "versions": versions}))
    return f"{CODE}-{pipeline.__version__}-{whole.short}"


def offered(jobs: int, memory: int, *, containers: bool) -> dict[str, float]:
    """Return the Dask resources that a worker on this machine offers.

    They are its relbuild, its architecture, places for containers, bytes of memory.
    """
    offer = {code(): float(jobs), f"{ARCH}-{platform.machine()}": float(jobs), MEMORY: float(memory)}
    return {**offer, CONTAINERS: float(jobs)} if containers else offer


def wanted(needs: Needs) -> dict[str, float]:
    """Return the Dask resources that a task takes of its worker while it is done there."""
    want = {code(): 1.0, f"{ARCH}-{needs.arch}": 1.0}
    if needs.containers:
        want[CONTAINERS] = 1.0
    if needs.memory:
        want[MEMORY] = float(needs.memory)
    return want


class Settled(distributed.WorkerPlugin):
    """Tells a worker's tasks where they are."""

    name = _PLUGIN

    def __init__(self, place: Place) -> None:
        self.place = place


@dataclass(frozen=True, slots=True)
class Errand:
    """A task as it is handed to a worker."""

    night: str
    name: str
    order: Order
    needs: Needs


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a worker about a task that is under way.

    `attempt` tells one beginning from the next. Plain data on its way: the scheduler keeps it.
    """

    night: str
    name: str
    attempt: str
    worker: str
    events: tuple[Event, ...]

    def plain(self) -> list[object]:
        """As lists, words and numbers."""
        events = [[_plain(value) for value in astuple(event)] for event in self.events]
        return [self.night, self.name, self.attempt, self.worker, events]

    @classmethod
    def parse(cls, said: object) -> Heard:
        """Parse a message from the form that `plain` returns.

        Raises ValueError for what no worker of relbuild tells: whoever can speak to the scheduler may say anything
        there.
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
    def of_night(cls, event: object, night: str) -> Heard | None:
        """Parse an event of the scheduler's topic, (time, message).

        Returns None if it is another night's, or no worker's.
        """
        try:
            assert isinstance(event, list | tuple)
            _, said = event
            return cls.parse(said) if said[0] == night else None
        except (AssertionError, ValueError, TypeError, LookupError):
            return None


def _event(said: object) -> Event:
    if not isinstance(said, list | tuple) or len(said) != len(fields(Event)):
        raise ValueError("it has an invalid event")
    kind, number, stage, text, amount, unit, failed = said
    return Event(
        Kind(_checked(kind, str, _WORD_LIMIT)),
        _checked(number, int, _AMOUNT_MOST),
        _checked(stage, str, _WORD_LIMIT),
        _checked(text, str, _TEXT_LIMIT),
        None if amount is None else _checked(amount, int, _AMOUNT_MOST),
        _checked(unit, str, _WORD_LIMIT),
        _checked(failed, bool, 1),
    )


def _checked(value: object, kind: type[T], most: int) -> T:
    """A value of just that type; `most` characters, or that as a number that is not negative."""
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} is not {kind.__name__}")
    assert isinstance(value, kind)
    if (len(value) if isinstance(value, str) else value if isinstance(value, int) else 0) not in range(most + 1):
        raise ValueError("it is beyond its bound")
    return value


def _plain(value: object) -> object:
    """Words are UTF-8 on their way; a file's name need not be. What is longer than any is cut."""
    return str(value)[:_TEXT_LIMIT].encode(errors="replace").decode() if isinstance(value, str) else value


def attend(errand: Errand) -> bytes:
    """Run a task in a process of its own, on a worker. Returns the `Ended` as JSON."""
    worker = distributed.get_worker()
    settled = worker.plugins[_PLUGIN]
    assert isinstance(settled, Settled)
    place = settled.place
    telling = _Telling(worker, worker.get_current_task(), errand, place.worker)
    crew = LocalCrew(Relay(telling.add), jobs=1)
    crew.start(errand.name, do_here, At(place, errand.order), errand.needs)
    with telling.until_ended(crew):
        ended = crew.next_ended()
    if telling.unwanted:
        raise distributed.Reschedule
    return result_bytes(replace(ended, worker=place.worker))


@dataclass(slots=True)
class _Telling:
    """The messages of a running task to its client, and the check that the task is still wanted.

    It tells the client what happens, in few messages, and looks whether somebody still waits for the task.
    """

    worker: distributed.Worker
    key: Key
    errand: Errand
    name: str
    unwanted: bool = False
    _attempt: str = field(default_factory=lambda: secrets.token_hex(8))
    _events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def add(self, event: Event) -> None:
        """Tell that with the next message. Called from any thread."""
        with self._lock:
            self._events.append(event)

    @contextmanager
    def until_ended(self, crew: LocalCrew) -> Iterator[None]:
        """Tell the client that the task begins, and then what happens, until the block ends.

        A task that is not wanted any more is ended.
        """
        self._tell()
        thread = threading.Thread(target=self._watch, args=(crew,), name="relbuild telling", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            if self._events:
                self._tell()

    def _watch(self, crew: LocalCrew) -> None:
        while not self._ended.wait(_PAUSE):
            if self._events:
                self._tell()
            if not self.unwanted and self._is_unwanted():
                self.unwanted = True
                crew.end(self.errand.name)

    def _tell(self) -> None:
        with self._lock:
            events, self._events = tuple(self._events), []
        for begin in range(0, max(1, len(events)), EVENTS_LIMIT):
            part = events[begin : begin + EVENTS_LIMIT]
            heard = Heard(self.errand.night, self.errand.name, self._attempt, self.name, part)
            self.worker.log_event(TOPIC, heard.plain())

    def _is_unwanted(self) -> bool:
        """Return True if the client has taken the task back, or the worker closes.

        Both go on until their threads end.
        """
        state = self.worker.state.tasks.get(self.key)
        if state is None or state.state == "cancelled":
            return True
        return self.worker.status in (Status.closing, Status.closed, Status.failed)
