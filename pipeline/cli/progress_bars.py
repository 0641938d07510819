"""Progress as live bars on a terminal, by Rich, with one line for each finished task."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.text import Text

from pipeline.cli.progress_display import ShownTask
from pipeline.escaping import escape_invisible
from pipeline.progress import Task
from pipeline.urls import redact_urls

_DRAWN_EVERY: Final = 0.1
"""Seconds between two drawings."""
_ENDED_WITHIN: Final = 1.0
"""Seconds in which a drawing ends, unless the terminal takes nothing."""


def _text(foreign: str) -> str:
    """Escape a foreign text for Rich: its markup, and control characters."""
    return escape(escape_invisible(foreign, lines=False))


class _Figures(ProgressColumn):
    """Sizes and rates for tasks in bytes, counts for the others."""

    def __init__(self) -> None:
        super().__init__()
        self._size, self._rate, self._count = DownloadColumn(), TransferSpeedColumn(), MofNCompleteColumn()

    def render(self, task: Bar) -> Text:
        if task.fields.get("unit") == "bytes":
            return Text.assemble(self._size.render(task), " ", self._rate.render(task))
        return self._count.render(task) if task.total else Text("")


class _LiveRunning(ShownTask):
    def __init__(self, bars: Bars, stage: str, label: str, total: int | None, unit: str) -> None:
        bar = bars.add_task(f"{stage:>8}  {_text(redact_urls(label))}", total=total, unit=unit)
        super().__init__(stage, label, total, unit, bar)
        self._bars = bars

    def advance(self, amount: int) -> None:
        super().advance(amount)
        assert self.bar is not None
        self._bars.advance(self.bar, amount)  # type: ignore[arg-type]


class Live:
    """Live bars on a terminal from the first task on; a finished task leaves one line behind.

    They are drawn in a thread, which a process has not before it needs it: with one, it could not fork.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._drawn = self._closed = False
        self._drawing: threading.Thread | None = None
        self._drawn_last = threading.Event()
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Figures(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            auto_refresh=False,  # Its own thread cannot be ended for a while.
            # Else what a command answers would not be in the file or pipe that stdout is.
            redirect_stdout=sys.stdout.isatty(),
        )

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        with self._lock:
            if not self._drawn and not self._closed:
                self._drawn = True
                self._bars.start()
                self._begin_drawing()
        return _LiveRunning(self._bars, stage, label, total, unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        assert isinstance(task, _LiveRunning)
        assert task.bar is not None
        self._bars.remove_task(task.bar)  # type: ignore[arg-type]
        self._bars.refresh()  # Else the bar would be drawn again below later output.
        mark = "[red]✗[/]" if failed else "[green]✓[/]"
        self._console.print(
            f"{mark} {task.stage:>8}  {_text(task.label)}  [dim]{_text(task.summary())}[/]", highlight=False
        )

    def warn(self, text: str) -> None:
        self._console.print(f"[yellow]! warning[/]  {_text(redact_urls(text))}", highlight=False)

    @contextmanager
    def undrawn(self) -> Iterator[None]:
        """Have no thread that draws for the time of the block; the bars stand still."""
        try:
            with self._lock:
                self._end_drawing()
            yield
        finally:
            with self._lock:
                if self._drawn and not self._closed:
                    self._begin_drawing()

    def _begin_drawing(self) -> None:
        self._drawn_last.clear()
        self._drawing = threading.Thread(target=self._draw, name="relbuild-drawing", daemon=True)
        self._drawing.start()

    def _draw(self) -> None:
        while not self._drawn_last.wait(_DRAWN_EVERY):
            self._bars.refresh()

    def _end_drawing(self) -> None:
        """Wait until the thread has ended."""
        thread, self._drawing = self._drawing, None
        if thread is None:
            return
        self._drawn_last.set()
        thread.join(_ENDED_WITHIN)

    def close(self) -> None:
        """Remove the bars from the screen; there are none from then on."""
        with self._lock:
            self._closed = True
            if not self._drawn:
                return
            try:
                self._end_drawing()
                self._bars.stop()
            except IndexError:  # A signal came while they were started: Rich takes back what it has not begun.
                self._console.show_cursor(True)


def open_live() -> Live:
    """Open live bars on stderr."""
    # Lines are not broken: paths and digests are copied from them.
    return Live(Console(stderr=True, soft_wrap=True))
