"""The `Executor` that gives tasks to the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import queue
import secrets
import time
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Self, assert_never

import distributed

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import ExcludedWorker
from pipeline.nightly.executors.dask.dask_resources import (
    code_version,
    relbuild_of,
    task_resources,
    version_text,
)
from pipeline.nightly.executors.dask.dask_task import DaskTask, run_dask_task
from pipeline.nightly.executors.dask.placement import Placement, lacking_hint, lacking_text, place_task
from pipeline.nightly.executors.dask.progress_message import EVENT_TOPIC, ProgressMessage
from pipeline.nightly.executors.dask.scheduler_connection import CLOSING_TIMEOUT, connect_to_scheduler
from pipeline.nightly.executors.executor_protocol import Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.progress_ipc import ProgressReceiver
from pipeline.nightly.executors.task_payload import TaskPayload
from pipeline.nightly.executors.task_result import read_result
from pipeline.nightly.executors.worker_health import SILENCE_TIMEOUT, TRIED_WORKERS_LIMIT, WorkerHealth
from pipeline.progress import Progress

WORKER_DEATHS_LIMIT = 3
"""Workers that may die while they do a task; then the task is taken for the cause."""

_SUBMISSIONS_LIMIT = 10
"""Times that a task is submitted again when a scheduler was lost, or the task was cancelled by others."""

_AHEAD = 8
"""Tasks that are submitted even without workers, so that an autoscaling cluster sees the load."""

_PAUSE = 0.1
_TICK = 0.5
_POLL_INTERVAL = 2.0
"""Seconds between two readings of the workers, while nothing happens."""


@dataclass(slots=True)
class _SubmittedTask:
    """A task that has not ended.

    `attempts` are its beginnings on workers as far as they were heard of, `worker` is where the last was, `times` how
    often it was given and `since` when that was. `placement` says which workers it may be done on, `faults` are those
    that failed it for what their machines lack, and why; `unsuitable` are those of them that are sound.
    """

    name: str
    payload: TaskPayload
    requirements: Requirements
    receiver: ProgressReceiver
    future: distributed.Future[bytes] | None = None
    times: int = 0
    attempts: list[str] = field(default_factory=list)
    worker: str = ""
    since: float = 0.0
    placement: Placement = Placement((), frozenset())
    faults: dict[str, str] = field(default_factory=dict)
    unsuitable: set[str] = field(default_factory=set)

    @property
    def machine_faults(self) -> dict[str, str]:
        """The workers that failed it for what no worker should lack, and why."""
        return {worker: why for worker, why in self.faults.items() if worker not in self.unsuitable}


@dataclass(slots=True)
class DaskExecutor:
    """The workers of a Dask cluster as an `Executor`. Made by `join`.

    `scheduler_timeout` is how many seconds a lost scheduler is waited for, `wait` how many a worker that can do a task;
    `health` knows which workers are to have none.
    """

    address: str
    progress: Progress
    scheduler_timeout: float
    wait: float
    health: WorkerHealth
    _client: distributed.Client
    _night: str = field(default_factory=lambda: secrets.token_hex(8))
    _tasks: dict[str, _SubmittedTask] = field(default_factory=dict)
    _news: queue.SimpleQueue[ProgressMessage | distributed.Future[bytes]] = field(default_factory=queue.SimpleQueue)
    _ended: list[TaskResult] = field(default_factory=list)
    _worker_resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    _asked: float = float("-inf")
    _other_versions: set[str] = field(default_factory=set)
    _waiting: dict[Requirements, float] = field(default_factory=dict)
    _connection: object = None

    @classmethod
    def join(
        cls,
        address: str,
        progress: Progress,
        *,
        plain: bool = False,
        scheduler_timeout: float = 60.0,
        wait: float = 300.0,
        silence: float = SILENCE_TIMEOUT,
    ) -> Self:
        """Connect to the scheduler at `address`, `tcp://HOST:PORT` or `tls://HOST:PORT`.

        Returns an executor for its workers. `silence`: see `WorkerHealth`; `plain`, and the errors: see
        `connect_to_scheduler`.
        """
        client = connect_to_scheduler(address, progress, plain=plain, timeout=scheduler_timeout)
        return cls(address, progress, scheduler_timeout, wait, WorkerHealth(silence), client)

    @property
    def size(self) -> int:
        """The number of tasks to have submitted at a time; see `Executor`.

        It is one task for each place, and one more for each worker, so that none waits for the next.
        """
        places = [int(resources.get(code_version(), 0)) for resources in self._read_workers().values()]
        return max(_AHEAD, sum(places) + sum(count > 0 for count in places))

    @property
    def several_machines(self) -> bool:
        """See `Executor`. Each worker has a machine, which may be of any architecture."""
        return True

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """See `Executor`."""
        return self.health.set_aside

    def start(self, name: str, function: TaskFunction, work: object, requirements: Requirements) -> None:
        """See `Executor`."""
        try:
            payload = TaskPayload.of(function, work, requirements.files)
        except UsageError as error:
            self._ended.append(TaskResult(name, lost=str(error)))
            return
        task = _SubmittedTask(name, payload, replace(requirements, files=()), ProgressReceiver(self.progress, name))
        self._tasks[name] = task
        if self._client.status == "running" or self._rejoined():
            self._submit(task)

    def next_result(self) -> TaskResult:
        """See `Executor`."""
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=_TICK)
                match news:
                    case ProgressMessage():
                        self._receive(news)
                    case distributed.Future():
                        self._take_future(news)
                    case _:
                        assert_never(news)
            self._read_workers()
            self._end_unplaceable()
        return self._ended.pop(0)

    def close(self) -> None:
        """Cancel all tasks and leave the scheduler; see `Executor`.

        Workers end their tasks when they are told; one that cannot be reached does not.
        """
        futures = [task.future for task in self._tasks.values() if task.future is not None]
        self._tasks.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)
        self._client.close(timeout=CLOSING_TIMEOUT)

    def _listen(self) -> None:
        """Subscribe to workers' messages; again after a scheduler was restarted."""
        if self._client.scheduler_comm is self._connection:
            return

        def receive(event: object) -> None:
            message = ProgressMessage.of_night(event, self._night)
            if message is not None:
                self._news.put(message)

        self._connection = self._client.scheduler_comm
        self._client.subscribe_topic(EVENT_TOPIC, receive)

    def _submit(self, task: _SubmittedTask) -> None:
        self._listen()
        task.times += 1
        task.since = time.monotonic()
        task.placement = self._place(task)
        task.future = self._client.submit(
            run_dask_task,
            DaskTask(self._night, task.name, task.payload, task.requirements),
            key=f"relbuild-{self._night}-{task.name}-{task.times}",
            resources=task_resources(task.requirements, emulated=task.placement.emulated),
            workers=list(task.placement.restricted_to) or None,
            allow_other_workers=False,
            pure=False,
        )
        task.future.add_done_callback(self._news.put)

    def _receive(self, message: ProgressMessage) -> None:
        task = self._tasks.get(message.name)
        if task is None:
            return
        if message.attempt not in task.attempts:
            if task.attempts:
                task.receiver.end()
                self.progress.warn(f"{task.name}: worker {task.worker} was lost; {message.worker} restarts the task")
            task.attempts.append(message.attempt)
            task.worker = message.worker
            if len(task.attempts) > WORKER_DEATHS_LIMIT:
                self._end_as_cause_of_deaths(task)
                return
        if message.attempt == task.attempts[-1]:
            for event in message.events:
                task.receiver.receive(event)

    def _take_future(self, future: distributed.Future[bytes]) -> None:
        """Handle a finished future: a result, an error, or cancelled because the scheduler is lost."""
        task = next((task for task in self._tasks.values() if task.future is future), None)
        if task is None:
            return
        if future.status != "cancelled":
            try:
                ended = read_result(future.result())
            except distributed.KilledWorker:
                # The scheduler also counts the deaths of workers where a task only waited.
                if len(task.attempts) >= WORKER_DEATHS_LIMIT:
                    self._end_as_cause_of_deaths(task)
                else:
                    self._resubmit(task)
            except distributed.CancelledError:
                self._resubmit(task)
            except ValueError as error:
                self._end(task, lost=f"its worker returned an invalid result: {error}")
            except Exception as error:  # A foreign worker may raise anything.
                self._end(task, lost=f"{type(error).__name__}: {error}")
            else:
                self._done(task, ended)
        elif self._client.status == "running" or self._rejoined():
            task.receiver.end()
            task.attempts.clear()
            self._resubmit(task)

    def _done(self, task: _SubmittedTask, ended: TaskResult) -> None:
        """Handle a worker's result; after a machine's fault, submit the task to another worker."""
        if not ended.fault:
            for worker, why in task.machine_faults.items():
                self.progress.warn(
                    f"{worker} gets no more tasks: {task.name} failed there, but succeeded on {ended.worker}: {why}"
                )
            self.health.exclude(task.machine_faults)
            self._end(task, ended.result, ended.lost, ended.worker)
            return
        task.faults[ended.worker] = ended.fault
        if ended.unsuitable:
            task.unsuitable.add(ended.worker)
        else:
            self.health.fault(ended.worker, ended.fault)
        tried_enough = len(task.machine_faults) >= TRIED_WORKERS_LIMIT or task.times >= _SUBMISSIONS_LIMIT
        if not tried_enough and self._place(task).usable:
            self.progress.warn(f"{task.name} is retried on another worker; {ended.worker} failed: {ended.fault}")
            task.receiver.end()
            task.attempts.clear()
            self._resubmit(task)
            return
        if len(task.machine_faults) > 1:
            self.health.reinstate(task.machine_faults)
        self._end(task, ended.result, ended.lost, ended.worker)

    def _resubmit(self, task: _SubmittedTask) -> None:
        if task.times < _SUBMISSIONS_LIMIT:
            self._submit(task)
        else:
            self._end(task, lost=f"it was submitted {task.times} times and cancelled each time")

    def _end_as_cause_of_deaths(self, task: _SubmittedTask) -> None:
        self._end(task, lost=f"{WORKER_DEATHS_LIMIT} workers died while running it, the last was {task.worker}")

    def _end(
        self, task: _SubmittedTask, result: object = None, lost: str = "", worker: str = "", hint: str = ""
    ) -> None:
        task.receiver.end()
        del self._tasks[task.name]
        if task.future is not None and not task.future.done() and self._client.status == "running":
            task.future.cancel(force=True)
        where, tried = worker or task.worker, tuple(task.faults)
        self._ended.append(TaskResult(task.name, result, lost, where, tried=tried, hint=hint))

    def _rejoined(self) -> bool:
        """Wait for a lost scheduler; return True if it came back.

        If it does not come back, all submitted tasks are lost.
        """
        if self._client.status == "connecting":
            self.progress.warn(
                f"connection to the scheduler {self.address} lost; reconnecting for {self.scheduler_timeout:.0f} s"
            )
        deadline = time.monotonic() + self.scheduler_timeout
        while self._client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        if self._client.status == "running":
            self.progress.warn(f"the scheduler {self.address} is back; running tasks are submitted again")
            return True
        for task in list(self._tasks.values()):
            self._end(task, lost=f"connection to the scheduler {self.address} lost, and not restored in time")
        return False

    def _read_workers(self) -> Mapping[str, Mapping[str, float]]:
        """Return the resources that workers offer, by their names, as they were some seconds ago."""
        now = time.monotonic()
        if now - self._asked < _POLL_INTERVAL or self._client.status != "running":
            return self._worker_resources
        self._asked = now
        with contextlib.suppress(OSError):  # The scheduler is lost just now, which its futures will show.
            workers = self._client.scheduler_info()["workers"].values()
            self._worker_resources = {str(worker["name"]): worker["resources"] for worker in workers}
            for name in self.health.look({str(one["name"]): one["last_seen"] for one in workers}, now):
                self._resubmit_elsewhere(name)
        other_versions = {
            name for name, resources in self._worker_resources.items() if code_version() not in resources
        } - self._other_versions
        if other_versions:
            self._other_versions |= other_versions
            who = "; ".join(
                f"{name} has {relbuild_of(self._worker_resources[name])}" for name in sorted(other_versions)
            )
            self.progress.warn(f"workers with another relbuild than {version_text(code_version())} get no tasks: {who}")
        return self._worker_resources

    def _resubmit_elsewhere(self, worker: str) -> None:
        """Submit the tasks of a worker that stopped responding, and those waiting for it, again."""
        self.progress.warn(f"{worker} sent no heartbeat for {self.health.silence:.0f} s; its tasks are reassigned")
        for task in list(self._tasks.values()):
            if task.future is not None and (task.worker == worker or not task.attempts):
                future, task.future = task.future, None
                future.cancel(force=True)
                # `attempts` stay: a task during which three workers stopped responding is taken for the cause.
                self._resubmit(task)

    def _end_unplaceable(self) -> None:
        """End the tasks that no worker has been able to do for some time.

        They wait for a while, because a cluster may grow, and its workers may restart.
        """
        now = time.monotonic()
        for task in list(self._tasks.values()):
            if (task.attempts and task.worker in self._worker_resources) or now - task.since < _POLL_INTERVAL:
                continue
            now_best = self._place(task)
            if now_best.usable and now_best.outdates(task.placement):
                if task.future is not None:
                    future, task.future = task.future, None
                    future.cancel(force=True)
                self._resubmit(task)
            if now_best.usable:
                self._waiting.pop(task.requirements, None)
            elif task.requirements not in self._waiting:
                self._waiting[task.requirements] = now
                self.progress.warn(f"{task.name} waits: {self._lacking(task.requirements)}")
            elif now - self._waiting[task.requirements] >= self.wait:
                hint = lacking_hint(task.requirements)
                self._end(task, lost=self._lacking(task.requirements), hint=hint)

    def _place(self, task: _SubmittedTask) -> Placement:
        """Return the workers that a task may be given to, as they were at the last reading."""
        return place_task(self._worker_resources, task.requirements, self.health, task.faults)

    def _lacking(self, requirements: Requirements) -> str:
        return lacking_text(self._worker_resources, requirements, self.set_aside)
