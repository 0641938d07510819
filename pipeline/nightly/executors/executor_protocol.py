"""Protocol of executors, with the data classes of requirements, results and settings.

An executor is given one task at a time and returns its result; it does not know what the tasks are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.absolute_path import AbsolutePath
from pipeline.model.night_record import ExcludedWorker
from pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class Requirements:
    """The requirements of a task on its worker.

    They are the architecture (rpm's name; "": any), bytes of memory, whether it must be able to run containers, and the
    files and folders of this machine that it reads.
    """

    arch: str
    memory: int = 0
    containers: bool = True
    files: tuple[AbsolutePath, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task that ended.

    `result` is what its function returned; else `lost` says how its worker ended, or what the function raised. `worker`
    is the name of its worker, "" for this machine. `fault`: it failed for what the machine lacks, in words;
    `unsuitable`: the machine is sound, and lacks only what this task needs. `tried`: all workers on which it failed so.
    `hint`: the way out, where no worker could be given it.
    """

    name: str
    result: object = None
    lost: str = ""
    worker: str = ""
    fault: str = ""
    unsuitable: bool = False
    tried: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MachineFault:
    """Result of a task function that failed because its machine lacks something.

    The task is tried on another machine: `why` in words, and the `result` to use if none succeeds. `unsuitable`: as
    `TaskResult` says.
    """

    why: str
    result: object
    unsuitable: bool = False


TaskFunction = Callable[[object, Progress], object]
"""Function of (work, progress), of a module's top level, so that it can be pickled by name."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The store, the output folder and the name of a cluster's worker.

    It builds into the output folder. `files` is the folder of the files that its task reads, each below its absolute
    path; None before there is a task.
    """

    store: AbsolutePath
    output: AbsolutePath
    worker: str
    files: AbsolutePath | None = None

    def local_path(self, path: AbsolutePath) -> AbsolutePath:
        """Return the path on this worker of a file of the machine that sent the task."""
        assert self.files is not None
        return AbsolutePath(self.files / path.relative_to("/"))


CURRENT_WORKER: ContextVar[WorkerSettings | None] = ContextVar("HERE", default=None)
"""The worker settings of a task, set in the process that runs it; None on the machine that sent it."""


class Executor(Protocol):
    """Protocol of executors: run tasks on workers and return their results. Not thread-safe."""

    @property
    def size(self) -> int:
        """The number of tasks that should be submitted at a time.

        It may change with what running tasks do.
        """

    def start(self, name: str, function: TaskFunction, work: object, requirements: Requirements) -> None:
        """Submit a task and return at once. `name` is unique among running tasks."""

    @property
    def several_machines(self) -> bool:
        """True if tasks run on several machines, which may be of different architectures."""

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """The workers that get no more tasks, and why."""

    def next_result(self) -> TaskResult | None:
        """Wait until a task ends, and return it; or None if meanwhile `size` has grown.

        A task whose worker was lost, or failed it for what its machine lacks, may have been tried on another meanwhile.
        """

    def close(self) -> None:
        """End running tasks, and release the workers."""
