"""Signal handling of the command line: SIGINT, SIGTERM, SIGHUP end it with one line.

Imports nothing that takes time: it is imported before all others. Until a command runs there is nothing to clean up,
and the process exits at once. While a command runs, a signal raises an exception in the main thread, so that open
contexts are closed; afterwards it exits at once again.

What is raised at some places is lost: in a callback that has nobody to raise it to, or in `__set_name__`, where Python
before 3.12 makes another error of it. Both are usual while something is imported. So what comes during an import is
raised after it, and what was lost is raised again.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # Importing `typing` takes longer than this module.
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType
    from typing import Self

PATIENCE = 1.0
"""Seconds from a signal until it is raised in the middle of an import: one that hangs is interrupted, too."""
_PAUSE = 0.001
"""Seconds until what was lost is raised again: the callback has ended, most of the time."""

_IMPORTS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
_LOSING = ("__set_name__", "__del__")
"""Functions that Python calls and whose exceptions it does not pass on as they are."""

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


class Interrupted(KeyboardInterrupt):
    """SIGINT came while a command ran."""


def end_at_once() -> None:
    """Let signals end the process at once from now on.

    Called once, before everything else, by the process's entry point alone.
    """
    for number in SIGNALS:
        # Signals that were ignored at the start (by `nohup`, or a shell's `&`) stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_at_once)


class Interruptible:
    """A block in which signals raise Interrupted or Terminated.

    Only signals that `end_at_once` handles are changed: a program that uses relbuild as a library keeps its own
    handlers.
    """

    def __init__(self) -> None:
        self._own: list[signal.Signals] = []
        self._waiting = 0
        """Number of a signal that is still to be raised."""
        self._until = 0.0

    def __enter__(self) -> Self:
        self._own = [number for number in SIGNALS if signal.getsignal(number) is _exit_at_once]
        self._hook = sys.unraisablehook
        if self._own:
            sys.unraisablehook = self._raise_lost
            signal.signal(signal.SIGALRM, lambda _, frame: self._raise(frame))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # Who starts relbuild may have blocked it.
        for number in self._own:
            signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._own:
            signal.signal(number, _exit_at_once)
        if self._own:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            sys.unraisablehook = self._hook
        if self._waiting:
            _exit_at_once(self._waiting, None)

    def check(self) -> None:
        """Raise what is still to be raised for a signal: Interrupted or Terminated."""
        self._raise(None)

    def number_of(self, error: BaseException | None) -> int | None:
        """Return the number of the signal that an error comes from, which is dealt with then.

        None if it comes from none. An error that Python makes of what was raised has it as its cause or context.
        """
        seen: set[int] = set()
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0
        while error is not None and not number and id(error) not in seen:
            seen.add(id(error))
            if isinstance(error, Interrupted | Terminated):
                number = error.number if isinstance(error, Terminated) else signal.SIGINT
            error = error.__cause__ or error.__context__
        number = number or self._waiting
        self._waiting = 0
        return number or None

    def _come(self, number: int, frame: FrameType | None) -> None:
        self._until = self._until if self._waiting else time.monotonic() + PATIENCE
        self._waiting = number
        self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        """Raise what waits, now or when the import that the frame belongs to has ended."""
        number = self._waiting
        if not number:
            return
        caller = _caller_of_losing(frame)
        if caller is not frame:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            if caller is not None and time.monotonic() < self._until:
                caller.f_trace = self._returned
                sys.settrace(_untraced)
                return
        else:
            self._waiting = 0
        if number == signal.SIGINT:
            raise Interrupted
        raise Terminated(number)

    def _returned(self, frame: FrameType, _event: str, _: object) -> None:
        """Raise what waits, in the line that follows an import."""
        sys.settrace(None)
        self._raise(frame)

    def _raise_lost(self, lost: UnraisableHookArgs) -> None:
        """Take what a callback could raise to nobody: what a signal raised is raised again soon."""
        error = lost.exc_value
        if not isinstance(error, Interrupted | Terminated):
            self._hook(lost)
            return
        self._waiting = error.number if isinstance(error, Terminated) else signal.SIGINT
        signal.setitimer(signal.ITIMER_REAL, _PAUSE)


def _caller_of_losing(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame from which on nothing that is raised is lost.

    It is the frame itself, or the one that imports something.
    """
    found, at = frame, frame
    while at is not None:
        code, at = at.f_code, at.f_back
        if code.co_filename in _IMPORTS or code.co_name in _LOSING:
            found = at
    return found


def _untraced(*_: object) -> None:
    """Trace no function that is called from now on."""


def _exit_at_once(number: int, _: object) -> None:
    try:
        os.write(2, f"{SIGNALS[signal.Signals(number)]}\n".encode())
    finally:
        os._exit(128 + number)
