"""Signals that end a command.

Loads nothing that takes time: it stands before all other imports.

Until a command runs there is nothing to put away, and the process ends at once, in one line. While a command runs, a
signal is an exception in the main thread, so that what is open is closed; afterwards it ends at once again.
"""

import os
import signal

SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal was closed",
}
"""Message of a process that a signal ends. The exit status is 128 and the signal's number."""


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came while a command ran. `code` is the exit status."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def end_at_once() -> None:
    """Let signals end the process at once from now on.

    Called once, first of all, by the process's entry alone.
    """
    for number in SIGNALS:
        # What was ignored when this was started (by `nohup`, or a shell's `&`) stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


class Interruptible:
    """A block in which signals raise KeyboardInterrupt or Terminated.

    They are signals that would end the process otherwise. Without `end_at_once` before, it changes nothing: what runs
    this as a library has signals of its own.
    """

    def __enter__(self) -> None:
        self._own = [number for number in SIGNALS if signal.getsignal(number) is _end]
        for number in self._own:
            signal.signal(number, _raise)

    def __exit__(self, *_: object) -> None:
        for number in self._own:
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    try:
        os.write(2, f"{SIGNALS[signal.Signals(number)]}\n".encode())
    finally:
        os._exit(128 + number)


def _raise(number: int, _: object) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)
