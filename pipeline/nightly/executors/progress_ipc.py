"""Progress between processes: a sender that makes events, a receiver that reports them.

Reports in one process become events of plain data, and are reported again in the other.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import field
from enum import StrEnum

from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task
from pipeline.urls import redact_urls

ADVANCE_INTERVAL = 0.25
"""Seconds between two `advance` events of one task, which may advance a thousand times a second."""


RUNNING_LIMIT = 1000
"""Progress tasks of one job at a time; a build has a dozen, so more are not from a build."""


class EventKind(StrEnum):
    """The kinds of progress events."""

    START = "start"
    ADVANCE = "advance"
    FINISH = "finish"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """A progress event of one task.

    `number` identifies the task within its job. `text` is the label, the note or the warning; `amount` the units done
    in all, or at START the total.
    """

    kind: EventKind
    number: int = 0
    stage: str = ""
    text: str = ""
    amount: int | None = None
    unit: str = ""
    failed: bool = False

    def __post_init__(self) -> None:
        if "://" in self.text:
            object.__setattr__(self, "text", redact_urls(self.text))


@dataclass(slots=True)
class _SentTask:
    number: int
    tell: Callable[[ProgressEvent], None]
    done: int = 0
    text: str = ""
    last: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, amount: int) -> None:
        with self.lock:
            self.done += amount
            now = time.monotonic()
            due = now - self.last >= ADVANCE_INTERVAL
            if due:
                self.last = now
        if due:
            self.tell(ProgressEvent(EventKind.ADVANCE, self.number, amount=self.done))

    def note(self, text: str) -> None:
        self.text = text


class ProgressSender:
    """A `Progress` that passes every event to `tell`, which is called from any thread."""

    def __init__(self, tell: Callable[[ProgressEvent], None]) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """See `pipeline.progress.Progress`."""
        running = _SentTask(next(self._numbers), self._tell)
        self._tell(ProgressEvent(EventKind.START, running.number, stage, label, total, unit))
        return running

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """See `pipeline.progress.Progress`."""
        assert isinstance(task, _SentTask)
        self._tell(ProgressEvent(EventKind.FINISH, task.number, text=task.text, amount=task.done, failed=failed))

    def warn(self, text: str) -> None:
        """See `pipeline.progress.Progress`."""
        self._tell(ProgressEvent(EventKind.WARN, text=text))


@dataclass(slots=True)
class ProgressReceiver:
    """Receiver of a job's progress events, which reports them to `progress`.

    Labels are prefixed with `name`.
    """

    progress: Progress
    name: str
    _running: dict[int, tuple[Task, int]] = field(default_factory=dict)

    def receive(self, event: ProgressEvent) -> None:
        """Handle one event; events come in order."""
        if event.kind is EventKind.WARN:
            self.progress.warn(self._named(event.text))
        elif event.kind is EventKind.START and len(self._running) < RUNNING_LIMIT:
            task = self.progress.start(event.stage, self._named(event.text), total=event.amount, unit=event.unit)
            self._running[event.number] = (task, 0)
        elif event.number in self._running:
            task, done = self._running.pop(event.number)
            if event.amount is not None and event.amount > done:
                task.advance(event.amount - done)
                done = event.amount
            if event.kind is EventKind.ADVANCE:
                self._running[event.number] = (task, done)
            else:
                if event.text:
                    task.note(event.text)
                self.progress.finish(task, failed=event.failed)

    def _named(self, text: str) -> str:
        return text if text.startswith(self.name) else f"{self.name}: {text}"

    def end(self) -> None:
        """Finish all tasks as failed: their worker is lost."""
        for task, _ in self._running.values():
            self.progress.finish(task, failed=True)
        self._running.clear()
