"""Replace standard streams so that closed, full or unread ones give clean errors."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import signal
import sys
from typing import Any, cast

BROKEN_PIPE = 128 + signal.SIGPIPE
"""Exit status where standard output is a broken pipe: that of a program which SIGPIPE ended."""

STDOUT = "standard output"
"""The file name in an OSError of standard output."""


class _Stream(io.FileIO):
    """Standard stream that waits for its reader, also where the pipe or terminal does not block."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  any buffer
        while (written := cast("int | None", super().write(data))) is None:
            select.select([], [self], [])  # Another process that has this terminal open set O_NONBLOCK.
        return written


class _StandardOutput(_Stream):
    """Standard output whose write errors have the file name STDOUT, for text and for bytes."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  any buffer
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            if isinstance(error, BrokenPipeError):
                error.errno = None  # Where it is EPIPE, Typer ends the process with status 1.
            raise


class _Diagnostics(io.TextIOWrapper):
    """Standard error whose write errors are ignored, so that work goes on."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Replace the standard streams; called once, by the process's entry point alone.

    Files that are opened later must not get the descriptor of a closed standard stream: a child would write into them.
    A closed stream is opened read-only on /dev/null, so that writes to it still fail.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    answers, diagnostics = _StandardOutput(1, "w", closefd=False), _Stream(2, "w", closefd=False)
    lines = answers.isatty()
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(answers), encoding, "backslashreplace", line_buffering=lines)
    sys.stderr = _Diagnostics(io.BufferedWriter(diagnostics), encoding, "backslashreplace", line_buffering=True)


def stdout_is_closed() -> bool:
    """Return whether the process was started without standard output."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return False


def stdout_is_unicode() -> bool:
    """Return whether standard output can hold any text.

    PYTHONIOENCODING may name an encoding that cannot.
    """
    return sys.__stdout__ is None or sys.__stdout__.encoding.lower() == "utf-8"


def require_reader() -> None:
    """Raise BrokenPipeError, as a write would, if nobody can read standard output any more.

    For who waits for what is to be written. A terminal and a file have readers.
    """
    asked = select.poll()
    asked.register(1, 0)  # Errors are told without being asked for.
    if any(told & (select.POLLERR | select.POLLHUP) for _, told in asked.poll(0)):
        error = BrokenPipeError()
        error.filename = STDOUT
        raise error


def drop_streams() -> None:
    """Flush the standard streams and redirect them to /dev/null, for a process that is detached."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def drop_stdout() -> None:
    """Redirect standard output to /dev/null: flushing its buffer at exit would fail again."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
