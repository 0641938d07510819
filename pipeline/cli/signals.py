"""Signal handling of the command line: SIGINT, SIGTERM, SIGHUP end it with one line.

Imports nothing that takes time: it is imported before all others. Until a command runs there is nothing to clean up,
and the process exits at once. While a command runs, a signal raises an exception in the main thread, so that open
contexts are closed; afterwards it exits at once again.
"""

import os
import signal

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

    Only signals that `end_at_once` handles are changed: a program that uses relbuild as a library keeps its own
    handlers.
    """

    def __enter__(self) -> None:
        self._own = [number for number in SIGNALS if signal.getsignal(number) is _exit_at_once]
        for number in self._own:
            signal.signal(number, _raise)

    def __exit__(self, *_: object) -> None:
        for number in self._own:
            signal.signal(number, _exit_at_once)


def _exit_at_once(number: int, _: object) -> None:
    try:
        os.write(2, f"{SIGNALS[signal.Signals(number)]}\n".encode())
    finally:
        os._exit(128 + number)


def _raise(number: int, _: object) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)
