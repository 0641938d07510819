"""A `Progress` that keeps the last lines and each stage's duration, and passes events on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import field

from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task


@dataclass(slots=True)
class _TimedTask:
    inner: Task
    stage: str
    label: str
    began: float
    text: str = ""

    def advance(self, amount: int) -> None:
        self.inner.advance(amount)

    def note(self, text: str) -> None:
        self.text = text
        self.inner.note(text)


@dataclass(slots=True)
class _StageClock:
    """Seconds in which at least one task of a stage was under way.

    `running` are under way now, since `began`.
    """

    total: float = 0.0
    running: int = 0
    began: float = 0.0

    def begin(self, now: float) -> None:
        if not self.running:
            self.began = now
        self.running += 1

    def end(self, now: float) -> None:
        self.running -= 1
        if not self.running:
            self.total += now - self.began


@dataclass(slots=True)
class ProgressLog:
    """A Progress that passes everything on to `inner`, and keeps a log.

    The log has the last `limit` lines as plain progress prints them, and the time of each stage in which at least one
    of its tasks was under way. `clock` returns seconds.
    """

    inner: Progress
    clock: Callable[[], float]
    limit: int = 40
    lines: list[str] = field(default_factory=list)
    _stages: dict[str, _StageClock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def steps(self) -> tuple[tuple[str, int], ...]:
        """(stage, milliseconds), in the order in which they began."""
        return tuple((stage, int(one.total * 1000)) for stage, one in self._stages.items())

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """See `pipeline.progress.Progress`."""
        now = self.clock()
        with self._lock:
            self._stages.setdefault(stage, _StageClock()).begin(now)
        return _TimedTask(self.inner.start(stage, label, total=total, unit=unit), stage, label, now)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """See `pipeline.progress.Progress`."""
        assert isinstance(task, _TimedTask)
        end = "failed" if failed else task.text
        with self._lock:
            self._stages[task.stage].end(self.clock())
            self._add(f"{task.stage} {task.label}" + (f": {end}" if end else ""))
        self.inner.finish(task.inner, failed=failed)

    def warn(self, text: str) -> None:
        """See `pipeline.progress.Progress`."""
        with self._lock:
            self._add(f"warning: {text}")
        self.inner.warn(text)

    def _add(self, line: str) -> None:
        self.lines.append(line)
        del self.lines[: -self.limit]
