"""Signal handling of the command line: SIGINT, SIGTERM, SIGHUP end it with one line.

Imports nothing that takes time: it is imported before all others. Until a command runs there is nothing to clean up,
and the process exits at once. While a command runs, a signal raises an exception in the main thread, so that open
contexts are closed; afterwards it exits at once again.

What is raised at some places is lost: in a callback that has nobody to raise it to, or in `__set_name__`, where Python
before 3.12 makes another error of it. Both are usual while something is imported. So what comes in an import waits, and
is raised a moment after the import has ended; what was lost all the same is raised again a moment later.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # Importing `typing` takes longer than this module.
if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs
    from types import FrameType
    from typing import Self

PATIENCE = 1.0
"""Seconds from a signal until it is raised in the middle of an import: one that hangs is interrupted, too."""
_PAUSE = 0.002
"""Seconds until a signal that waits is looked at again."""

_IMPORTS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
_LOSING = ("__set_name__", "__del__", "_FirstUse.__get__", "Interruptible._take_lost", "complete_model_class")
"""Functions that Python or a library calls and whose exceptions it does not pass on as they are.

The third is of `pipeline.lazy_dataclasses`: an object whose `__hash__` cannot be had is told as unhashable. The last is
pydantic's: what is raised while a model's validator is made becomes the text of a SchemaError.
"""
_CAUSES_LIMIT = 100
"""Errors that each have the next as their cause or context. They may go round in a circle."""

SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal was closed",
}
"""Message of a process that a signal ends. The exit status is 128 plus the signal's number."""


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came while a command ran. `code` is the exit status."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def end_at_once() -> None:
    """Let signals end the process at once from now on.

    Called once, before everything else, by the process's entry point alone.
    """
    for number in SIGNALS:
        # Signals that were ignored at the start (by `nohup`, or a shell's `&`) stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_at_once)


class Interruptible:
    """A block in which signals raise KeyboardInterrupt or Terminated.

    What one raised and what leaves the block ends the process at once: it came while the command was ending. Only those
    that `end_at_once` handles are changed: a program that uses relbuild as a library keeps its own handlers.
    """

    def __init__(self) -> None:
        self._own: list[signal.Signals] = []
        self._waiting = 0
        """Number of a signal that is still to be raised."""
        self._until = 0.0
        self._end = _exit_at_once
        """The handler of signals after the block."""

    def __enter__(self) -> Self:
        self._own = [number for number in SIGNALS if signal.getsignal(number) is _exit_at_once]
        self._hook = sys.unraisablehook
        if self._own:
            sys.unraisablehook = self._take_lost
        for number in self._own:
            signal.signal(number, self._come)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        for number in self._own:
            signal.signal(number, self._end)
        if self._own:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = self._hook
            if (last := self.number_of(error)) is not None:
                self._end(last, None)

    def check(self) -> None:
        """Raise what is still to be raised for a signal: KeyboardInterrupt or Terminated."""
        self._raise(None)

    def number_of(self, error: BaseException | None) -> int | None:
        """Return the number of the signal that an error comes from, which is dealt with then.

        None if it comes from none. An error that Python makes of what was raised has it as its cause or context.
        """
        waiting, self._waiting = self._waiting, 0
        for _ in range(_CAUSES_LIMIT):
            if isinstance(error, KeyboardInterrupt | Terminated):
                return _number(error)
            if error is None:
                break
            error = error.__cause__ or error.__context__
        return waiting or None

    def tell(self, line: Callable[[], None]) -> None:
        """Print the line of the signal that ends the command.

        What comes meanwhile or later ends the process at once, without a line of its own.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._own)
        try:
            line()
        finally:
            self._end = _exit_silently
            for number in self._own:
                signal.signal(number, self._end)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _come(self, number: int, frame: FrameType | None) -> None:
        if not self._waiting:
            self._until = time.monotonic() + PATIENCE
        self._waiting = number
        self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        """Raise what waits, unless it might be lost in the frame: then look again soon."""
        number = self._waiting
        if not number:
            return
        if not _may_lose(frame):
            self._waiting = 0
        elif time.monotonic() < self._until:
            self._look_again(_PAUSE)
            return
        else:
            self._look_again(PATIENCE)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)

    def _look_again(self, seconds: float) -> None:
        signal.signal(signal.SIGALRM, lambda _, frame: self._raise(frame))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # Who starts relbuild may have blocked it.
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _take_lost(self, lost: UnraisableHookArgs) -> None:
        """Take what a callback could raise to nobody: what a signal raised is raised again soon."""
        if isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
            self._waiting = _number(lost.exc_value)
            self._look_again(_PAUSE)
        else:
            self._hook(lost)


def _number(raised: KeyboardInterrupt | Terminated) -> int:
    return raised.number if isinstance(raised, Terminated) else signal.SIGINT


def _may_lose(frame: FrameType | None) -> bool:
    """Return True if what is raised in a frame may be lost: an import or Python calls it."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename in _IMPORTS or code.co_name in _LOSING or code.co_qualname in _LOSING:
            return True
        frame = frame.f_back
    return False


def _exit_at_once(number: int, _: object) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # Another one would have a line, too.
    try:
        os.write(2, f"{SIGNALS[signal.Signals(number)]}\n".encode())
    finally:
        _exit_silently(number, None)


def _exit_silently(number: int, _: object) -> None:
    os._exit(128 + number)
