"""A function that a forked child computes, beside other work.

For work of a tenth of a second that needs nothing but what this process has in memory (`forked_child`). Whatever goes
wrong in the child, there is no result, and the caller computes it itself: an error has its message, and a warning is
printed, in the place and at the time that people know.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from pipeline.forked_child import end_child, fork_child, may_fork, signals_held

_LENGTH: Final = struct.Struct(">Q")
ANSWER_SIZE_LIMIT: Final = 16 << 20
"""Bytes of a result as JSON."""
ANSWER_DEADLINE: Final = 3.0
"""Seconds that are waited for a result, of work that takes a fraction of one: who computes it here needs no more."""
_PIPE_SIZE: Final = 1 << 20
"""Bytes that the child writes without waiting for this process, where the system lets an ordinary user have them."""
_PIECE: Final = 1 << 16


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
        with signals_held():
            os.close(self._handle)
            end_child(self._pid)
            self._pid, self._handle = 0, -1


@contextlib.contextmanager
def forked_call(compute: Callable[[], object]) -> Iterator[ForkedCall]:
    """Have a child compute a JSON value while the block runs; it has ended after the block.

    There is no child where this process may make none (`may_fork`), or if the system gives none.
    """
    call = ForkedCall()
    try:
        with signals_held(), contextlib.suppress(OSError):
            if may_fork():
                call = _forked(compute)
        yield call
    finally:
        try:
            call.end()
        finally:  # A second signal may have come before it had begun.
            call.end()


def _forked(compute: Callable[[], object]) -> ForkedCall:
    """Raises OSError where the system gives no pipe or no child."""
    reader, writer = os.pipe()
    try:
        pid = fork_child(lambda: _answer(compute, writer), writer)
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    os.close(writer)
    return ForkedCall(pid, reader)


def _answer(compute: Callable[[], object], writer: int) -> None:
    """Compute in the child, and write the result."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    data = json.dumps(compute()).encode()
    left = memoryview(_LENGTH.pack(len(data)) + data)
    while left and len(data) <= ANSWER_SIZE_LIMIT:
        left = left[os.write(writer, left) :]


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
