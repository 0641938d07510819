"""Replace standard streams so that closed, full or unread ones give clean errors."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator

BROKEN_PIPE = 128 + signal.SIGPIPE
"""Exit status where standard output is a broken pipe: that of a program which SIGPIPE ended."""

STDOUT = "standard output"
"""The file name in an OSError of standard output."""


class _Diagnostics(io.TextIOWrapper):
    """Standard error whose write errors are ignored, so that work goes on."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class _Answers(io.TextIOWrapper):
    """Standard output whose write errors have the file name STDOUT."""

    def write(self, text: str, /) -> int:
        with _about_stdout():
            return super().write(text)

    def flush(self) -> None:
        with _about_stdout():
            super().flush()


@contextlib.contextmanager
def _about_stdout() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STDOUT
        raise


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
    answers, diagnostics = (io.FileIO(number, "w", closefd=False) for number in (1, 2))
    lines = answers.isatty()
    sys.stdout = _Answers(io.BufferedWriter(answers), encoding, "strict", line_buffering=lines)
    sys.stderr = _Diagnostics(io.BufferedWriter(diagnostics), encoding, "backslashreplace", line_buffering=True)


def stdout_is_closed() -> bool:
    """Return whether the process was started without standard output."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return False


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
