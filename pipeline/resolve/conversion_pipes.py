"""Pipes to a child that is not believed: it may never read, write, end or close them.

A process that it started may hold its ends open, in another session too, where no signal to its group arrives. So no
end of a pipe is waited for without the child: once it has ended, what stands in the pipes is all that counts.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterable
from types import TracebackType

from pipeline.digest import CHUNK
from pipeline.process import DeadlinePassed, Process, kill_group, wait_unreaped


class ChildLate(Exception):
    """Raised when a child was waited for longer than allowed."""


class ChildPipes:
    """A child's stdin, stdout and stderr. `seconds` are how long to wait for it, in all.

    As a context manager it leaves no child: its process group is killed, its pipes are closed.
    """

    def __init__(self, process: Process, seconds: float) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._seconds = seconds
        self._streams = (process.stdin, process.stdout, process.stderr)
        self._stdin, self._stdout, self._stderr = (stream.fileno() for stream in self._streams)
        self._child = -1

    def __enter__(self) -> ChildPipes:
        try:
            with contextlib.suppress(OSError):  # Linux before 5.3: its end is then known by that of its pipes.
                self._child = os.pidfd_open(self._process.pid)
            for number in (self._stdin, self._stdout, self._stderr):
                os.set_blocking(number, False)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            kill_group(self._process)
            self._process.wait()
        if self._child >= 0:
            os.close(self._child)
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()

    def write_all(self, pieces: Iterable[bytes]) -> tuple[bool, int]:
        """Write pieces to the child and close its input.

        Returns whether it took all, or had ended before (why, it says itself), and the bytes of the pieces up to there.
        Raises ChildLate.
        """
        size = 0
        for piece in pieces:  # An error of theirs is not one of the pipe.
            size += len(piece)
            if not self._write(piece):
                return False, size
        self._streams[0].close()
        return True, size

    def _write(self, piece: bytes) -> bool:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BrokenPipeError:
                return False
            except BlockingIOError:
                if not self._wait_for(self._stdin, select.POLLOUT):
                    return False
        return True

    def read(self) -> bytes:
        """Return what the child writes next, or b"" once there is no more. Raises ChildLate."""
        return self._read(self._stdout, CHUNK)

    def read_errors(self, limit: int) -> bytes:
        """Return the beginning of what it writes to stderr. Raises ChildLate."""
        found = b""
        while len(found) < limit and (piece := self._read(self._stderr, limit - len(found))):
            found += piece
        return found

    def _read(self, number: int, size: int) -> bytes:
        ended = False
        while True:
            try:
                return os.read(number, size)
            except BlockingIOError:
                if ended:
                    return b""
                ended = not self._wait_for(number, select.POLLIN)

    def wait(self) -> int:
        """Wait for its end, kill what it has started, and return its status. Raises ChildLate."""
        if self._child >= 0:
            self._wait_for(self._child, select.POLLIN)
        else:
            try:
                wait_unreaped(self._process, self._seconds)
            except DeadlinePassed:
                raise ChildLate from None
        kill_group(self._process)  # Before the number of the group can be another's.
        return self._process.wait()

    def _wait_for(self, number: int, event: int) -> bool:
        """Wait until a pipe is ready; return False if only the child has ended. Raises ChildLate."""
        poll = select.poll()
        if self._child >= 0:  # First: what the child wrote before its end is then seen too.
            poll.register(self._child, select.POLLIN)
        poll.register(number, event)
        began = time.monotonic()
        ready = poll.poll(max(0.0, self._seconds) * 1000)
        self._seconds -= time.monotonic() - began
        if not ready:
            raise ChildLate
        return any(one == number for one, _ in ready)
