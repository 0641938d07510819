"""Programs on a terminal, and what a person sees of what they write to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from tests.support.patience import HUNG

_UNSET = ("NO_COLOR", "COLUMNS", "LINES")
_CODE = re.compile(r"\x1b\[(\??)(\d*)(?:;\d+)*([A-Za-z])|[\r\n]|[^\x1b\r\n]+")

_CONTROL = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended: what it wrote to the terminal and to stdout, if that was a pipe."""

    written: bytes
    answer: bytes
    status: int

    @property
    def screen(self) -> Screen:
        """What is seen at the end."""
        return Screen(self.written.decode())


class Screen:
    """Lines on a terminal that is large enough, and whether the cursor is seen."""

    def __init__(self, written: str) -> None:
        self.has_cursor = True
        rows, row, column = [""], 0, 0
        for code in _CODE.finditer(written):
            text, (private, number, letter) = code[0], code.groups()
            if private:
                assert number == "25", text
                self.has_cursor = letter == "h"
            elif letter == "A":
                row -= int(number)
            elif letter == "K":
                assert number == "2", text
                rows[row] = ""
            elif letter is not None:
                assert letter == "m", text
            elif text == "\r":
                column = 0
            elif text == "\n":
                row += 1
                rows += [""] * (row - len(rows) + 1)
            else:
                rows[row] = rows[row].ljust(column)[:column] + text + rows[row][column + len(text) :]
                column += len(text)
            assert row >= 0, "the cursor is above what was written"
        self.lines = [one.rstrip() for one in rows]
        while self.lines and not self.lines[-1]:
            self.lines.pop()


def drawn_lines(written: str) -> list[str]:
    """Return each line that was drawn, also those that were drawn over."""
    return [_CONTROL.sub("", one).strip() for one in re.split(r"\r|\n|\x1b\[2K", written)]


def run_in_terminal(
    program: str,
    *words: str | Path,
    piped: bool = False,
    at: str = "",
    act: Callable[[subprocess.Popen[bytes], int], object] = lambda process, terminal: None,
) -> Ended:
    """Run Python code with arguments on a terminal of 40 lines and 120 columns; `piped`: its stdout is a pipe.

    `act` is called with the process and the terminal's descriptor once the text `at` was written.
    """
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=other,
        stdout=subprocess.PIPE if piped else other,
        stderr=other,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
    ) as process:
        os.close(other)
        written, acted, until = b"", not at, time.monotonic() + HUNG
        try:
            with contextlib.suppress(OSError):  # EIO: nobody has it open any more.
                while select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0]:
                    written += os.read(terminal, 1 << 16)
                    if not acted and at.encode() in written:
                        acted = True
                        act(process, terminal)
            answer = process.stdout.read() if process.stdout is not None else b""
            return Ended(written, answer, process.wait(HUNG))
        finally:
            process.kill()
            os.close(terminal)
