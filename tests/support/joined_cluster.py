"""A cluster that is joined: what is told of it, and tasks that are given to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import distributed

from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.executor_protocol import Executor, Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.worker_health import SILENCE_TIMEOUT
from pipeline.progress import Task
from tests.support.machines import Machines
from tests.support.patience import HUNG

HERE = Requirements("x86_64")


@dataclass(slots=True)
class Recorder:
    """A Progress that remembers what was told, as lines."""

    lines: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        self.lines.append(f"{stage} {label}")
        return _Recorded(f"{stage} {label}", self.counts)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        assert isinstance(task, _Recorded)
        if failed:
            self.failed.append(task.label)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


@dataclass(frozen=True, slots=True)
class _Recorded:
    label: str
    counts: Counter[str]

    def advance(self, amount: int) -> None:
        self.counts[self.label] += amount

    def note(self, text: str) -> None:
        pass


@contextmanager
def joined(
    net: Machines, *, scheduler_timeout: float = HUNG, wait: float = HUNG, silence: float = SILENCE_TIMEOUT
) -> Iterator[tuple[DaskExecutor, Recorder]]:
    """An executor of the cluster. `scheduler_timeout` is how long a scheduler is waited for that is lost later."""
    recorder = Recorder()
    executor = DaskExecutor.join(net.address, recorder, plain=True, scheduler_timeout=HUNG, wait=wait, silence=silence)
    executor.scheduler_timeout = scheduler_timeout
    (warned,) = recorder.lines
    assert f"{net.address} is not encrypted" in warned
    recorder.lines.clear()
    try:
        yield executor, recorder
    finally:
        executor.close()


def do(executor: Executor, tasks: dict[str, tuple[TaskFunction, object]]) -> dict[str, TaskResult]:
    """Give all of them at once, as many at a time as the executor wants; how each ended."""
    waiting, under_way, ended = list(tasks), 0, {}
    while waiting or under_way:
        while waiting and under_way < executor.size:
            name = waiting.pop(0)
            executor.start(name, *tasks[name], HERE)
            under_way += 1
        end = executor.next_result()
        under_way -= 1
        ended[end.name] = end
    return ended


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HUNG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_there(net: Machines, *names: str) -> None:
    """Wait until these workers have joined."""
    with distributed.Client(net.address, set_as_default=False) as client:
        until(lambda: set(names) <= {worker["name"] for worker in client.scheduler_info()["workers"].values()})
