"""A forked child that works beside this process. Door to `os.fork()`.

For work that needs what this process has in memory, where an interpreter of its own would take too long to start, or
too much to be told. The child inherits no descriptor but those that are named, prints nothing, calls no exit function,
starts no command, and ends when this process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, TextIO, cast

from pipeline.process import refuse_commands
from pipeline.processors import usable_processors

_PR_SET_PDEATHSIG: Final = 1
_HELD_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""Signals that the child does not get: a terminal sends them to both, and this process ends the child.

After an alarm, a command raises again what came for one of the others.
"""
_LEFT_WITHIN: Final = 1.0
"""Seconds within which the system lets go of a thread that has ended, on a machine with much other work."""


def may_fork() -> bool:
    """Return False if this process may use no more than one processor, or has several threads.

    Another thread's locks would stay locked in the child for ever. Nor where the system would not keep the child's
    number until it is waited for. Raises OSError where the system does not tell the number of threads.
    """
    return (
        usable_processors() > 1
        and _has_one_thread()
        # Else a child that has ended is gone, and its number another's (signal(7)). Whoever starts relbuild may say so.
        and signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN
    )


def _has_one_thread() -> bool:
    """Return whether this process has one thread.

    The system has one that was joined for some moments more.
    """
    until = time.monotonic() + _LEFT_WITHIN
    while len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        if threading.active_count() > 1 or time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Handle signals after the block.

    A child that was made is known then, and one that was killed has ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # Asked first: what blocks them may raise for one that came.
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork_child(run: Callable[[], None], *kept: int) -> int:
    """Have `run` called in a child, which ends after it; return the child's number.

    The child has the descriptors `kept` and no others. To be called where signals are held, so that it does not get
    them. Raises OSError where the system gives no child.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        run_child(run, kept, parent)
    return pid


def kill_child(pid: int) -> None:
    """Kill a child that was not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_child(pid: int) -> None:
    """Kill a child and wait for its end. To be called where signals are held."""
    kill_child(pid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def run_child(run: Callable[[], None], kept: tuple[int, ...], parent: int) -> NoReturn:
    """Call `run` in the child of `parent`, and leave the process as it is."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:  # Else it ended before that.
            gc.disable()  # The system takes its memory soon.
            _leave_descriptors(kept)
            sys.stdout = sys.stderr = cast("TextIO", _Unprinted())
            refuse_commands()
            run()
    finally:
        os._exit(0)


def _leave_descriptors(kept: tuple[int, ...]) -> None:
    """Close all descriptors but `kept`; the standard streams lead nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for handle in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if handle > 2 and handle not in kept:
            with contextlib.suppress(OSError):  # That of the listing.
                os.close(handle)


class _Unprinted:
    """A standard stream of the child, which ends when something is to be printed.

    The parent prints it, when it does the same.
    """

    def write(self, _: str) -> NoReturn:
        os._exit(1)

    def flush(self) -> None:
        """There is nothing to be written."""
