"""A Dask scheduler that is stood in for: what is submitted to it, and workers that do it when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.dask.dask_resources import worker_resources
from pipeline.nightly.executors.dask.dask_task import DaskTask
from pipeline.nightly.executors.dask.progress_message import ProgressMessage
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.executors.task_result import result_bytes
from pipeline.progress import QUIET, Task


@dataclass
class Recorder:
    """A Progress of which only the warnings are kept."""

    warned: list[str] = field(default_factory=list)

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        return QUIET.start(stage, label, total=total, unit=unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warned.append(text)


@dataclass
class Future:
    """A task in the hands of `Cluster`."""

    task: DaskTask
    only: list[str] | None
    resources: dict[str, float]
    status: str = "pending"
    answer: bytes = b""
    cancelled: bool = False

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self.call = call

    def result(self) -> bytes:
        return self.answer

    def done(self) -> bool:
        return self.status != "pending"

    def cancel(self, *, force: bool) -> None:
        self.cancelled = force


@dataclass
class Cluster:
    """A scheduler whose workers have one place each. A worker that is `fast` ends a task before others begin one.
    `offers` are the resources of workers that do not offer what this machine does."""

    names: tuple[str, ...]
    fast: str = ""
    status: str = "running"
    scheduler_comm: object = None
    given: list[Future] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)
    offers: dict[str, dict[str, float]] = field(default_factory=dict)

    def scheduler_info(self) -> dict[str, Any]:
        usual = worker_resources(1, 8 << 30, containers=True)
        workers = {
            f"tcp://{name}": {
                "name": name,
                "resources": self.offers.get(name, usual),
                "last_seen": self.seen.get(name, 0.0),
            }
            for name in self.names
        }
        return {"workers": workers}

    def subscribe_topic(self, topic: str, hear: object) -> None:
        pass

    def submit(self, function: object, task: DaskTask, **words: Any) -> Future:
        future = Future(task, words["workers"], words["resources"])
        self.given.append(future)
        return future

    def hand_out(self, executor: DaskExecutor, do: Callable[[str, str], TaskResult]) -> str:
        """Let a worker do the first task that waits; who did it."""
        future = next(one for one in self.given if one.status == "pending" and not one.cancelled)
        able = [name for name in self.names if future.only is None or name in future.only]
        worker = self.fast if self.fast in able else able[len(self.given) % len(able)]
        name = future.task.name
        executor._receive(ProgressMessage(executor._night, name, f"{len(self.given)}", worker, ()))
        future.answer = result_bytes(do(name, worker))
        future.status = "finished"
        future.call(future)
        return worker
