"""Record of a command's tasks: where its time went, as a table or as a trace.

The trace is in the Trace Event Format, which chrome://tracing, Perfetto and Speedscope read: complete events with times
in microseconds.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.cli.messages import print_lines
from pipeline.cli.path_arguments import has_other_kind
from pipeline.cli.progress_display import bytes_text, close, import_bars
from pipeline.critical_path import Interval, critical_path
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task, undrawn
from pipeline.urls import redact_urls

REST = "rest"
"""The stage of the time in which no task is under way: start-up, reading documents, writing reports."""
_TRACE_MARK = re.compile(rb'"traceEvents"')
"""The key of the events in a trace."""
PATH_SLACK = 0.01
"""Seconds by which a task may begin before the one ended that it waited for: its thread was faster to say so."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time, in seconds; `cpu` counts this process and children that have ended."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task that has ended.

    `done` is in `unit`; `thread` is the number of the thread that began it.
    """

    stage: str
    label: str
    began: Instant
    ended: Instant
    done: int
    unit: str
    thread: int
    failed: bool


@dataclass(frozen=True, slots=True)
class StageTime:
    """The time of one stage.

    `wall`: seconds in which at least one of its tasks was under way; `cpu`: seconds of CPU, an equal share where tasks
    of several stages were; `waiting`: seconds of its share of the wall clock in which no CPU of this command worked.
    `bytes` went through its tasks.
    """

    stage: str
    wall: float
    cpu: float
    waiting: float
    tasks: int
    bytes: int


def stage_times(tasks: Sequence[RecordedTask], began: Instant, ended: Instant) -> tuple[StageTime, ...]:
    """Return the times of all stages in the order in which they began, and of the rest."""
    instants = sorted({began, ended, *(one.began for one in tasks), *(one.ended for one in tasks)}, key=_wall)
    wall, cpu, waiting = dict[str, float](), dict[str, float](), dict[str, float]()
    for before, after in itertools.pairwise(instants):
        active = {one.stage for one in tasks if one.began.wall <= before.wall and after.wall <= one.ended.wall} or {
            REST
        }
        took, used = after.wall - before.wall, max(0.0, after.cpu - before.cpu)
        for stage in active:
            wall[stage] = wall.get(stage, 0.0) + took
            cpu[stage] = cpu.get(stage, 0.0) + used / len(active)
            waiting[stage] = waiting.get(stage, 0.0) + max(0.0, took - used) / len(active)
    order = dict.fromkeys([*(one.stage for one in sorted(tasks, key=lambda one: one.began.wall)), REST])
    return tuple(
        StageTime(
            stage,
            wall.get(stage, 0.0),
            cpu.get(stage, 0.0),
            waiting.get(stage, 0.0),
            sum(one.stage == stage for one in tasks),
            sum(one.done for one in tasks if one.stage == stage and one.unit == "bytes"),
        )
        for stage in order
    )


def _wall(instant: Instant) -> float:
    return instant.wall


def timing_lines(times: Sequence[StageTime], total: float) -> Iterator[str]:
    """Format the times of stages as a table."""
    yield f"{'stage':>10}  {'wall':>8}  {'CPU':>8}  {'waiting':>8}  {'bytes':>10}  tasks"
    for one in times:
        data = bytes_text(one.bytes) if one.bytes else "-"
        yield f"{one.stage:>10}  {one.wall:7.2f}s  {one.cpu:7.2f}s  {one.waiting:7.2f}s  {data:>10}  {one.tasks}"
    cpu, waiting = sum(one.cpu for one in times), sum(one.waiting for one in times)
    yield f"{'all':>10}  {total:7.2f}s  {cpu:7.2f}s  {waiting:7.2f}s"


def task_path_lines(tasks: Sequence[RecordedTask], began: Instant) -> Iterator[str]:
    """Format the chain of tasks that decided how long the command took.

    Before each stands how long nothing of the chain was under way.
    """
    names = {f"{number}": one for number, one in enumerate(tasks)}
    # A label begins with what the task is about: in a night, the product.
    intervals = [
        Interval(name, one.began.wall, one.ended.wall, one.label.partition(":")[0]) for name, one in names.items()
    ]
    path = critical_path(intervals, PATH_SLACK)
    if not path:
        return
    yield "critical path:"
    free = began.wall
    for step in path:
        one = names[step.name]
        yield (
            f"{one.stage:>10}  {step.ended - step.began:7.2f}s  after {max(0.0, step.began - free):.2f}s  {one.label}"
        )
        free = step.ended


def trace_events(tasks: Sequence[RecordedTask], began: Instant) -> list[dict[str, object]]:
    """Return complete events (`"ph": "X"`), in the order in which the tasks began."""
    return [
        {
            "name": f"{one.stage} {one.label}",
            "cat": one.stage,
            "ph": "X",
            "ts": round((one.began.wall - began.wall) * 1e6),
            "dur": round((one.ended.wall - one.began.wall) * 1e6),
            "pid": 1,
            "tid": one.thread,
            "args": {one.unit: one.done, "failed": one.failed, "cpu_ms": round((one.ended.cpu - one.began.cpu) * 1e3)},
        }
        for one in sorted(tasks, key=lambda one: one.began.wall)
    ]


def now() -> Instant:
    """Return the present instant, since the process began where the system tells it."""
    spent = os.times()
    return Instant(time.monotonic(), sum(spent[:4]))


class _Running:
    def __init__(self, shown: Task, stage: str, label: str, unit: str, began: Instant) -> None:
        self.shown, self.stage, self.label, self.unit, self.began = shown, stage, label, unit, began
        self.thread = threading.get_native_id()
        self.done = 0
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount
        self.shown.advance(amount)

    def note(self, text: str) -> None:
        self.shown.note(text)


class ProgressRecorder:
    """Progress that is shown by another one, and recorded until it is closed."""

    def __init__(
        self, shown: Progress, *, timings: bool, trace: Path | None, clock: Callable[[], Instant] = now
    ) -> None:
        self._shown = shown
        self._timings = timings
        self._trace = trace
        self._clock = clock
        self._began = clock()
        self._tasks: list[RecordedTask] = []
        self._lock = threading.Lock()
        self._closed = False

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """Begin to show and to record a task."""
        shown = self._shown.start(stage, label, total=total, unit=unit)
        return _Running(shown, stage, redact_urls(label), unit, self._clock())

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """Keep the record of a task, and show its end."""
        assert isinstance(task, _Running)
        ended = self._clock()
        done = RecordedTask(task.stage, task.label, task.began, ended, task.done, task.unit, task.thread, failed)
        with self._lock:
            self._tasks.append(done)
        self._shown.finish(task.shown, failed=failed)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._shown.warn(text)

    def import_bars(self) -> None:
        """Import what shows tasks."""
        import_bars(self._shown)

    def undrawn(self) -> AbstractContextManager[None]:
        """Have no thread that draws for the time of a block."""
        return undrawn(self._shown)

    def close(self) -> None:
        """End what is shown, and write the record. May be called twice."""
        close(self._shown)
        if self._closed:
            return
        self._closed = True
        ended = self._clock()
        if self._timings:
            times = stage_times(self._tasks, self._began, ended)
            path = task_path_lines(self._tasks, self._began)
            print_lines("", *timing_lines(times, ended.wall - self._began.wall), *path)
        if self._trace is not None:
            document = {"traceEvents": trace_events(self._tasks, self._began), "displayTimeUnit": "ms"}
            try:
                self._trace.write_text(json.dumps(document, indent=1) + "\n")
            except OSError as error:
                print_lines(f"warning: the trace cannot be written to '{self._trace}': {error.strerror}")


def require_writable(path: Path) -> None:
    """Refuse a file for the trace that cannot be made, before the work begins.

    Who forgets that `--trace` takes a file gives it a recipe. Raises UsageError `trace-unwritable`, `not-a-trace`.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(
            "trace-unwritable",
            f"no file can be written at '{path}'",
            place="--trace",
            hint="name a file in a folder that is there, such as trace.json",
        )
    if has_other_kind(path, _TRACE_MARK):
        raise UsageError(
            "not-a-trace",
            f"'{path}' is no earlier trace, and would be replaced by one",
            place="--trace",
            hint="name another file, such as trace.json, or remove it",
        )
