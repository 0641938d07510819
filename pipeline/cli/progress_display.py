"""Progress on stderr: live bars on a terminal, plain lines elsewhere, JSON for programs.

JSON progress has one value per line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from pipeline.escaping import escape_invisible
from pipeline.progress import Progress, Task
from pipeline.urls import redact_urls

if TYPE_CHECKING:
    from pipeline.cli.progress_bars import Live


class ProgressStyle(StrEnum):
    """The values of `--progress`."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


_RATE_MIN_TIME = 0.02
"""Seconds from which on a rate is shown: quicker tasks found their result, and a rate means nothing."""


def bytes_text(count: float) -> str:
    """Bytes for people: `12.3 MB` (decimal units, as registries show them)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


class ShownTask:
    def __init__(self, stage: str, label: str, total: int | None, unit: str, bar: int | None = None) -> None:
        self.stage, self.label, self.total, self.unit, self.bar = stage, redact_urls(label), total, unit, bar
        self.done = 0
        self.text = ""
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount

    def note(self, text: str) -> None:
        self.text = redact_urls(text)

    def summary(self) -> str:
        took = time.monotonic() - self.started
        parts = [self.text] if self.text else []
        if self.unit == "bytes" and self.done:
            rate = f" at {bytes_text(self.done / took)}/s" if took >= _RATE_MIN_TIME else ""
            parts.append(f"{bytes_text(self.done)}{rate}")
        elif self.done and not self.text:
            parts.append(f"{self.done} {self.unit}")
        parts.append(f"{took:.1f} s")
        return ", ".join(parts)


class _Lines:
    """Plain lines: one when a task ends, and one when it begins if it may take long."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        return ShownTask(stage, label, total, unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        assert isinstance(task, ShownTask)
        self._say(f"{task.stage:>8}  {task.label}: {'failed, ' if failed else ''}{task.summary()}")

    def warn(self, text: str) -> None:
        self._say(f" warning  {redact_urls(text)}")

    def _say(self, text: str) -> None:
        with self._lock:
            print(escape_invisible(text, lines=False), file=self._stream, flush=True)


class _Warnings(_Lines):
    """Warnings alone: who wants no progress wants to know of them all the same."""

    def finish(self, task: Task, *, failed: bool = False) -> None:
        pass


class _JsonLines(_Lines):
    """One JSON object a line: `{"event": "finish", "stage": …}`."""

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        shown = redact_urls(label)
        self._say(json.dumps({"event": "start", "stage": stage, "label": shown, "total": total, "unit": unit}))
        return super().start(stage, label, total=total, unit=unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        assert isinstance(task, ShownTask)
        took = round((time.monotonic() - task.started) * 1000)
        event = {"event": "finish", "stage": task.stage, "label": task.label, "failed": failed}
        self._say(json.dumps({**event, "done": task.done, "unit": task.unit, "note": task.text, "took_ms": took}))

    def warn(self, text: str) -> None:
        self._say(json.dumps({"event": "warning", "text": redact_urls(text)}))


class _LiveWhenNeeded:
    """Live bars that are imported when there is something to show.

    To import them takes longer than many commands run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._closed = False

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        return self.import_bars().start(stage, label, total=total, unit=unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        self.import_bars().finish(task, failed=failed)

    def warn(self, text: str) -> None:
        self.import_bars().warn(text)

    def import_bars(self) -> Live:
        with self._lock:
            if self._live is None:
                from pipeline.cli.progress_bars import open_live

                self._live = open_live()
                if self._closed:
                    self._live.close()
            return self._live

    def undrawn(self) -> AbstractContextManager[None]:
        return self._live.undrawn() if self._live is not None else nullcontext()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._live is not None:
                self._live.close()


def import_bars(progress: Progress) -> None:
    """Import what live progress needs to show a task, if it is live, while there is time for it."""
    begin = getattr(progress, "import_bars", None)
    if begin is not None:
        begin()


def close(progress: Progress) -> None:
    """Remove live progress from the screen, if there is any. May be called twice."""
    end = getattr(progress, "close", None)
    if end is not None:
        end()


def open_progress(style: ProgressStyle) -> Progress:
    """Open the progress of a style; `auto` is live on a terminal and plain elsewhere.

    It is plain on a terminal too if that has no cursor (TERM=dumb), or if the user wants text alone (NO_COLOR, as
    no-color.org says). `none` shows warnings alone.
    """
    if style is ProgressStyle.NONE:
        return _Warnings(sys.stderr)
    if style is ProgressStyle.JSON:
        return _JsonLines(sys.stderr)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}
    if style is ProgressStyle.AUTO and sys.stderr.isatty() and not plain:
        return _LiveWhenNeeded()
    return _Lines(sys.stderr)
