"""Protocol of progress reporting: tasks that start, advance and finish, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work that is under way."""

    def advance(self, amount: int) -> None:
        """`amount` more units (bytes or items) are done. Called from any thread."""

    def note(self, text: str) -> None:
        """Set the task's result, which is shown at its end: `reused`, `12 packages` …"""


class Progress(Protocol):
    """The interface that the library reports progress to.

    It is called from any thread.
    """

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """Report that a task begins.

        `stage` is a verb of the pipeline (`resolve`, `fetch`, `layer`, `compress`, `state`, `smoke`), `unit` is `items`
        or `bytes`, `total` is in that unit.
        """

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """Report that a task has ended."""

    def warn(self, text: str) -> None:
        """Report a warning."""


@contextmanager
def undrawn(progress: Progress) -> Iterator[None]:
    """Have no thread of `progress` for the time of the block, where it draws in one.

    A process with several threads cannot fork (`forked_child`). What programs tell their own way (`relbuild.Settings`)
    need not have it, so it is no member of the protocol.
    """
    pause = getattr(progress, "undrawn", None)
    if pause is None:
        yield
        return
    with pause():
        yield


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
"""Progress that is not shown."""


@contextmanager
def task(
    progress: Progress, stage: str, label: str, *, total: int | None = None, unit: str = "items"
) -> Iterator[Task]:
    """Report a task for the duration of the block; it fails when the block raises."""
    running = progress.start(stage, label, total=total, unit=unit)
    try:
        yield running
    except BaseException:
        progress.finish(running, failed=True)
        raise
    progress.finish(running)
