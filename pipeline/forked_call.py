"""A function that a forked child computes, beside other work. Door to `os.fork()`.

For work of a tenth of a second that needs nothing but what this process has in memory, where an interpreter of its own
would take as long to start. The child inherits no descriptor, prints nothing, calls no exit function, starts no
command, and ends when this process ends, however it ends. Whatever goes wrong in it, there is no result, and the caller
computes it itself: an error has its message, and a warning is printed, in the place and at the time that people know.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, TextIO, cast

from pipeline.process import refuse_commands
from pipeline.processors import usable_processors

_LENGTH: Final = struct.Struct(">Q")
ANSWER_SIZE_LIMIT: Final = 16 << 20
"""Bytes of a result as JSON."""
ANSWER_DEADLINE: Final = 3.0
"""Seconds that are waited for a result, of work that takes a fraction of one: who computes it here needs no more."""
_PIPE_SIZE: Final = 1 << 20
"""Bytes that the child writes without waiting for this process, where the system lets an ordinary user have them."""
_PIECE: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_HELD_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""Signals that the child does not get: a terminal sends them to both, and this process ends the child.

After an alarm, a command raises again what came for one of the others.
"""


class ForkedCall:
    """A call in a child process; without a child (`pid` 0) there is no result."""

    def __init__(self, pid: int = 0, handle: int = -1) -> None:
        self._pid, self._handle = pid, handle

    @property
    def has_child(self) -> bool:
        """True if a child computes, or has computed."""
        return self._pid != 0

    @property
    def is_running(self) -> bool:
        """True if the child computes, and nothing of its result is here yet."""
        return self._pid != 0 and not _is_readable(self._handle, 0.0)

    def result(self) -> object | None:
        """Wait for the result, a JSON value, and end the child; None if it had none."""
        if not self._pid:
            return None
        with contextlib.suppress(OSError, EOFError, ValueError):
            until = time.monotonic() + ANSWER_DEADLINE
            (size,) = _LENGTH.unpack(_read(self._handle, _LENGTH.size, until))
            if size <= ANSWER_SIZE_LIMIT:
                data = _read(self._handle, size, until)
                self.end()
                value: object = json.loads(data)
                return value
        self.end()
        return None

    def end(self) -> None:
        """Kill the child, if there is one, and wait for its end.

        What a signal's handler raises comes before that, and it is to be called again, or when the child has ended.
        """
        if not self._pid:
            return
        with _signals_held():
            os.close(self._handle)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid, self._handle = 0, -1


@contextlib.contextmanager
def forked_call(compute: Callable[[], object]) -> Iterator[ForkedCall]:
    """Have a child compute a JSON value while the block runs; it has ended after the block.

    There is no child if this process may use no more than one processor, or has several threads: another thread's locks
    would stay locked in the child for ever. Nor if the system gives no child, or would not keep its number until it is
    waited for.
    """
    call = ForkedCall()
    try:
        with _signals_held(), contextlib.suppress(OSError):
            if _may_fork():
                call = _forked(compute)
        yield call
    finally:
        try:
            call.end()
        finally:  # A second signal may have come before it had begun.
            call.end()


def _may_fork() -> bool:
    """Raises OSError where the system does not tell the number of threads."""
    return (
        usable_processors() > 1
        and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208
        # Else a child that has ended is gone, and its number another's (signal(7)). Whoever starts relbuild may say so.
        and signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN
    )


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Handle signals after the block.

    A child that was made is known then, and one that was killed has ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # Asked first: what blocks them may raise for one that came.
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forked(compute: Callable[[], object]) -> ForkedCall:
    """Raises OSError where the system gives no pipe or no child."""
    parent = os.getpid()
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        _serve(compute, writer, parent)
    os.close(writer)
    return ForkedCall(pid, reader)


def _serve(compute: Callable[[], object], writer: int, parent: int) -> NoReturn:
    """Compute in the child, write the result, and leave the process as it is."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:  # Else it ended before that.
            gc.disable()  # The system takes its memory soon.
            _leave_descriptors(writer)
            sys.stdout = sys.stderr = cast("TextIO", _Unprinted())
            refuse_commands()
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            data = json.dumps(compute()).encode()
            left = memoryview(_LENGTH.pack(len(data)) + data)
            while left and len(data) <= ANSWER_SIZE_LIMIT:
                left = left[os.write(writer, left) :]
    finally:
        os._exit(0)


def _leave_descriptors(kept: int) -> None:
    """Close all descriptors but one, and have nothing in the place of the standard streams."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for handle in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if handle > 2 and handle != kept:
            with contextlib.suppress(OSError):  # That of the listing.
                os.close(handle)


class _Unprinted:
    """A standard stream of the child, which ends when something is to be printed.

    The parent prints it, when it computes the same.
    """

    def write(self, _: str) -> NoReturn:
        os._exit(1)

    def flush(self) -> None:
        """There is nothing to be written."""


def _is_readable(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _read(handle: int, size: int, until: float) -> bytes:
    """Raises EOFError if the child ended before, or does not answer in time."""
    taken = bytearray()
    while len(taken) < size:
        piece = _is_readable(handle, until - time.monotonic()) and os.read(handle, min(_PIECE, size - len(taken)))
        if not piece:
            raise EOFError
        taken += piece
    return bytes(taken)
