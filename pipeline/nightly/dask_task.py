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
from pipeline.nightly.executor import ProcessExecutor, Requirements, WorkerSettings
from pipeline.nightly.progress_ipc import EventKind, ProgressEvent, ProgressSender
from pipeline.nightly.relbuild_digest import code_digest
from pipeline.nightly.task_payload import PlacedPayload, TaskPayload, run_payload
from pipeline.nightly.task_result import result_bytes

_T = TypeVar("_T", str, int, bool)

EVENT_TOPIC = "relbuild"
"""The scheduler keeps the last events of every topic for as long as it lives: one topic for all nights is bounded."""

EVENTS_LIMIT = 256
"""Events in one message; more go in several."""

_WORD_LIMIT, _TEXT_LIMIT = 200, 4000
"""Characters of a name, and of a label or a warning: an error with its hint has some hundred."""

_AMOUNT_MOST = 1 << 62

CODE_RESOURCE, ARCH_RESOURCE, CONTAINERS_RESOURCE, MEMORY_RESOURCE = "RELBUILD", "ARCH", "CONTAINERS", "MEMORY"
"""Dask's names of what workers offer and tasks take; the first two are followed by `-` and which."""

_PLUGIN = "relbuild"
_PAUSE = 0.1
"""Seconds between two messages of one task, and between two looks whether it is still wanted."""

_DECIDING = ("zstandard", "deflate", "rpm", "solv", "Jinja2", "PyYAML", "cryptography", "distributed")
"""Distributions whose version decides what a task's bytes are, or how it is handed over."""


@functools.cache
def code_version() -> str:
    """Return the name of this relbuild's code.

    It names its version, and the digest of its files, of Python's version and of the versions of what its bytes depend
    on. Two that are named alike do the same with the same task.
    """
    versions = {name: importlib.metadata.version(name) for name in _DECIDING}
    python = ".".join(map(str, sys.version_info[:2]))
    whole = Digest.of(canonical_json({"files": str(code_digest()), "python": python, "versions": versions}))
    return f"{CODE_RESOURCE}-{pipeline.__version__}-{whole.short}"


def worker_resources(jobs: int, memory: int, *, containers: bool) -> dict[str, float]:
    """Return the Dask resources that a worker on this machine offers.

    They are its relbuild, its architecture, places for containers, bytes of memory.
    """
    resources = {
        code_version(): float(jobs),
        f"{ARCH_RESOURCE}-{platform.machine()}": float(jobs),
        MEMORY_RESOURCE: float(memory),
    }
    return {**resources, CONTAINERS_RESOURCE: float(jobs)} if containers else resources


def task_resources(requirements: Requirements) -> dict[str, float]:
    """Return the Dask resources that a task takes of its worker while it is done there."""
    resources = {code_version(): 1.0, f"{ARCH_RESOURCE}-{requirements.arch}": 1.0}
    if requirements.containers:
        resources[CONTAINERS_RESOURCE] = 1.0
    if requirements.memory:
        resources[MEMORY_RESOURCE] = float(requirements.memory)
    return resources


class WorkerSettingsPlugin(distributed.WorkerPlugin):
    """Tells a worker's tasks where they are."""

    name = _PLUGIN

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings


@dataclass(frozen=True, slots=True)
class DaskTask:
    """A task as it is handed to a worker."""

    night: str
    name: str
    payload: TaskPayload
    requirements: Requirements


@dataclass(frozen=True, slots=True)
class ProgressMessage:
    """A message of a worker about a task that is under way.

    `attempt` tells one beginning from the next. Plain data on its way: the scheduler keeps it.
    """

    night: str
    name: str
    attempt: str
    worker: str
    events: tuple[ProgressEvent, ...]

    def plain(self) -> list[object]:
        """As lists, words and numbers."""
        events = [[_plain(value) for value in astuple(event)] for event in self.events]
        return [self.night, self.name, self.attempt, self.worker, events]

    @classmethod
    def parse(cls, said: object) -> ProgressMessage:
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


def run_dask_task(task: DaskTask) -> bytes:
    """Run a task in a process of its own, on a worker. Returns the `TaskResult` as JSON."""
    worker = distributed.get_worker()
    plugin = worker.plugins[_PLUGIN]
    assert isinstance(plugin, WorkerSettingsPlugin)
    settings = plugin.settings
    reporter = _TaskReporter(worker, worker.get_current_task(), task, settings.worker)
    executor = ProcessExecutor(ProgressSender(reporter.add), jobs=1)
    executor.start(task.name, run_payload, PlacedPayload(settings, task.payload), task.requirements)
    with reporter.until_ended(executor):
        ended = executor.next_result()
    if reporter.unwanted:
        raise distributed.Reschedule
    return result_bytes(replace(ended, worker=settings.worker))


@dataclass(slots=True)
class _TaskReporter:
    """The messages of a running task to its client, and the check that the task is still wanted.

    It tells the client what happens, in few messages, and looks whether somebody still waits for the task.
    """

    worker: distributed.Worker
    key: Key
    task: DaskTask
    name: str
    unwanted: bool = False
    _attempt: str = field(default_factory=lambda: secrets.token_hex(8))
    _events: list[ProgressEvent] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def add(self, event: ProgressEvent) -> None:
        """Tell that with the next message. Called from any thread."""
        with self._lock:
            self._events.append(event)

    @contextmanager
    def until_ended(self, executor: ProcessExecutor) -> Iterator[None]:
        """Tell the client that the task begins, and then what happens, until the block ends.

        A task that is not wanted any more is ended.
        """
        self._tell()
        thread = threading.Thread(target=self._watch, args=(executor,), name="relbuild telling", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            if self._events:
                self._tell()

    def _watch(self, executor: ProcessExecutor) -> None:
        while not self._ended.wait(_PAUSE):
            if self._events:
                self._tell()
            if not self.unwanted and self._is_unwanted():
                self.unwanted = True
                executor.end(self.task.name)

    def _tell(self) -> None:
        with self._lock:
            events, self._events = tuple(self._events), []
        for begin in range(0, max(1, len(events)), EVENTS_LIMIT):
            part = events[begin : begin + EVENTS_LIMIT]
            message = ProgressMessage(self.task.night, self.task.name, self._attempt, self.name, part)
            self.worker.log_event(EVENT_TOPIC, message.plain())

    def _is_unwanted(self) -> bool:
        """Return True if the client has taken the task back, or the worker closes.

        Both go on until their threads end.
        """
        state = self.worker.state.tasks.get(self.key)
        if state is None or state.state == "cancelled":
            return True
        return self.worker.status in (Status.closing, Status.closed, Status.failed)
