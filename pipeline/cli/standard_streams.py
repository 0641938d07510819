"""Standard streams that are closed, full, or that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator

BROKEN_PIPE = 128 + signal.SIGPIPE
"""Exit status where nobody reads standard output any more: that of a program which SIGPIPE ended."""

STDOUT = "standard output"
"""The file name in an OSError of standard output."""


class _Diagnostics(io.TextIOWrapper):
    """Standard error, which drops what nobody can read.

    There is no other place to say so, and work goes on.
    """

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class _Answers(io.TextIOWrapper):
    """Standard output. An error says that it is about that, as those of files say about which."""

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
    """Make the standard streams safe. Called once, by the process's entry alone.

    Nothing that is opened later may get the number of a standard stream: a child would write into it. A closed
    stream becomes one that can only be read, so that a write to it fails as it did."""
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
    """Was the process started without standard output?"""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return False


def drop_stdout() -> None:
    """Let what is still in the buffer of standard output go nowhere.

    It would fail again at the exit.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
