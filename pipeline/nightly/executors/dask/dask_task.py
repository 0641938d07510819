"""Run one task on a Dask worker, in a child process, and send its progress to the client.

`run_dask_task` is the one function that Dask workers are given.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace

import distributed
from dask.typing import Key
from distributed.core import Status

from pipeline.lazy_dataclasses import dataclass
from pipeline.nightly.executors.dask.progress_message import EVENT_TOPIC, EVENTS_LIMIT, ProgressMessage
from pipeline.nightly.executors.executor_protocol import Requirements, WorkerSettings
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.nightly.executors.progress_ipc import ProgressEvent, ProgressSender
from pipeline.nightly.executors.task_payload import PlacedPayload, TaskPayload, run_payload
from pipeline.nightly.executors.task_result import result_bytes

_PLUGIN = "relbuild"
_PAUSE = 0.1
"""Seconds between two messages of one task, and between two checks whether it was cancelled."""


class WorkerSettingsPlugin(distributed.WorkerPlugin):
    """Dask plugin that holds the worker's settings for its tasks."""

    name = _PLUGIN

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings


@dataclass(frozen=True, slots=True)
class DaskTask:
    """A task as it is sent to a worker."""

    night: str
    name: str
    payload: TaskPayload
    requirements: Requirements


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
    assert ended is not None, "an executor without overlap keeps its size"
    if reporter.unwanted:
        raise distributed.Reschedule
    return result_bytes(replace(ended, worker=settings.worker))


@dataclass(slots=True)
class _TaskReporter:
    """Sender of a running task's progress to its client, and watcher for its cancellation.

    Events are sent in few messages.
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
        """Add an event to the next message. Called from any thread."""
        with self._lock:
            self._events.append(event)

    @contextmanager
    def until_ended(self, executor: ProcessExecutor) -> Iterator[None]:
        """Send messages from the beginning of the task until the block ends.

        A task that was cancelled is killed.
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
        """Return True if the client has cancelled the task, or the worker closes.

        Both go on until their threads end.
        """
        state = self.worker.state.tasks.get(self.key)
        if state is None or state.state == "cancelled":
            return True
        return self.worker.status in (Status.closing, Status.closed, Status.failed)
