"""The protocol of executors, and what they are given and return.

An executor is given one task at a time and returns its result; it does not know what the tasks are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from pipeline.model.absolute_path import AbsolutePath
from pipeline.model.night_record import ExcludedWorker
from pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class Requirements:
    """The requirements of a task on its worker.

    They are the architecture (rpm's name), bytes of memory, whether it has to be able to make containers, and the files
    and folders of this machine that it reads.
    """

    arch: str
    memory: int = 0
    containers: bool = True
    files: tuple[AbsolutePath, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task that ended.

    `result` is what its function returned; else `lost` says what became of its worker, or what the function raised.
    `worker` names who did it, "" for this machine. `fault`: it failed for what the machine lacks, in words. `tried`:
    all workers on which it failed so.
    """

    name: str
    result: object = None
    lost: str = ""
    worker: str = ""
    fault: str = ""
    tried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineFault:
    """Result of a function that failed because its machine lacks something.

    Another machine may do better: `why` in words, and the `result` if no other does.
    """

    why: str
    result: object


TaskFunction = Callable[[object, Progress], object]
"""A function of a module, so that it can be named to another process: what to do, and where to report progress."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The store, the output folder and the name of a cluster's worker.

    It builds into the output folder. `files` is where the files that its task reads stand, each below its absolute
    path; None before there is a task.
    """

    store: AbsolutePath
    output: AbsolutePath
    worker: str
    files: AbsolutePath | None = None

    def local_path(self, path: AbsolutePath) -> AbsolutePath:
        """Path here of a file of the machine that gave the task."""
        assert self.files is not None
        return AbsolutePath(self.files / path.relative_to("/"))


CURRENT_WORKER: ContextVar[WorkerSettings | None] = ContextVar("HERE", default=None)
"""The place of a task, set in the process that does it; None on the machine that gave it."""


class Executor(Protocol):
    """The interface of what does tasks. Not called from two threads."""

    @property
    def size(self) -> int:
        """The number of tasks that are worth giving at a time."""

    def start(self, name: str, function: TaskFunction, work: object, requirements: Requirements) -> None:
        """Give a task. Returns at once. `name` tells it from all others that are under way."""

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """The workers that get no more tasks, and why."""

    def next_result(self) -> TaskResult:
        """Wait until a task ends, and return it.

        A task whose worker was lost, or failed it for what its machine lacks, may have been tried on another meanwhile.
        """

    def close(self) -> None:
        """End what is under way, and let the workers go."""
