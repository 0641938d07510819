"""Progress as events. The library reports what it does; `pipeline.cli` decides how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work that is under way."""

    def advance(self, amount: int) -> None:
        """`amount` more units (bytes or items) are done. Called from any thread."""

    def note(self, text: str) -> None:
        """Set the task's result, said once at the end: `reused`, `12 packages` …"""


class Progress(Protocol):
    """The interface that the library reports progress to.

    It is called from any thread.
    """

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """Report that a task begins.

        `stage` is a verb of the pipeline (`resolve`, `fetch`, `layer`, `state`, `image`, `smoke`), `unit` is `items`
        or `bytes`, `total` is in that unit.
        """

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """The task ended."""

    def warn(self, text: str) -> None:
        """Something that the person should know and that is no error."""


class _Quiet:
    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        return self

    def finish(self, task: Task, *, failed: bool = False) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


QUIET: Progress = _Quiet()
"""Says nothing."""


@contextmanager
def task(
    progress: Progress, stage: str, label: str, *, total: int | None = None, unit: str = "items"
) -> Iterator[Task]:
    """A task that lasts as long as the `with` block and fails when the block raises."""
    running = progress.start(stage, label, total=total, unit=unit)
    try:
        yield running
    except BaseException:
        progress.finish(running, failed=True)
        raise
    progress.finish(running)
