"""Signals, and requests of other commands, that stop what `run` has launched."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """A signal handler that stops instances cleanly, as do requests of other commands.

    Once instances run that can be stopped cleanly (`armed`), the first Ctrl-C or SIGTERM sets `asked`, and a Ctrl-C
    after it interrupts. Another SIGTERM does not: who ends all processes of a unit sends it several times to this one,
    since an ordinary user's outer processes pass it on. Before that, the first one interrupts. `within`: milliseconds
    until they are killed, if another command asked for that. `number`: that of the first signal that asked, if one did.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.armed = False
        self.within: int | None = None
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.armed or (self.asked.is_set() and number == signal.SIGINT):
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number
        self.asked.set()

    def arm(self) -> None:
        """Let the first signal from now on stop the instances cleanly."""
        self.armed = True

    def ask(self, within: int | None) -> None:
        """Ask for a clean stop, as a signal does.

        `within`: milliseconds until the kill; None: as asked before, else the usual ones.
        """
        if within is not None:
            self.within = within
        self.asked.set()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM by a `StopRequest` during the block."""
    stopping = StopRequest()
    before = [(number, signal.signal(number, stopping)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stopping
    finally:
        for number, handler in before:
            signal.signal(number, handler)
