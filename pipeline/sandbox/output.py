"""Capture of what containers print, read as it comes and kept up to a bound.

A runtime bounds nothing: the reader must.

A flood costs the reader little: there are so many reads a second and no more, for which the pipe is made larger; what
nobody keeps or follows goes to /dev/null inside the kernel; and who follows is told so much a second and no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

_PIECE = 65536

_LARGE_PIPE = 1 << 20
"""Bytes that a pipe holds once there is a flood: what an ordinary user may have (pipe(7), pipe-max-size)."""

_READS = 200
"""A second, after as many at once. With a large pipe that lets 200 MB/s through, more than anybody logs."""

_PAUSE = 1 / _READS

FOLLOW_RATE = 1 << 20
"""Bytes a second that followers are told, after as many at once: more than anybody reads."""

_LINE, _ODD = 64, 8
"""Bytes that a line, and a byte that is no text, count for besides their own: showing these takes longer."""

_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


class RunningCommand(Protocol):
    """A command that `pipeline.process.start` has started."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Capture:
    """A pipe's write end for a container, and a thread that reads the other end.

    The first `limit` bytes are kept; the rest is counted and dropped, so that a flood fills nothing. `uid` and `gid`
    are whom the pipe belongs to on the machine: a program in the container may open /dev/stdout anew, which the
    kernel checks against the pipe's owner. `follow` gets every piece as it comes, also beyond the limit, in the reading
    thread, but not more than FOLLOW_RATE bytes a second; then it is told how much it missed. If it raises, it gets no
    more.
    """

    def __init__(self, limit: int, *, uid: int, gid: int, follow: Callable[[bytes], None] | None = None) -> None:
        self._limit = limit
        self._told = follow
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._dropped = 0
        self._missed = 0
        self._allowed = _Bucket(FOLLOW_RATE, FOLLOW_RATE)
        self._read, self.write_end = os.pipe()
        os.fchown(self._read, uid, gid)
        os.fchown(self.write_end, uid, gid)
        self._thread = threading.Thread(target=self._follow, name="capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        self.finish()

    def started(self) -> None:
        """The container has the write end now: give up this process's."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def finish(self) -> None:
        """Wait until all output has been read.

        Ends when the last holder of the write end is gone.
        """
        self._thread.join()

    def catch_up(self, within: float) -> None:
        """The same, but for at most `within` seconds: something may still hold the write end."""
        self._thread.join(within)

    @property
    def kept(self) -> bytes:
        """The output so far, up to the limit."""
        with self._lock:
            return bytes(self._kept)

    @property
    def dropped(self) -> int:
        """Bytes beyond the limit."""
        with self._lock:
            return self._dropped

    def _follow(self) -> None:
        reads = _Bucket(_READS, _READS)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            while self._take() if self._wanted() else self._drop(null):
                if not reads.take(1):
                    self._enlarge()
                    time.sleep(_PAUSE)
            self._tell_missed()
        finally:
            os.close(self._read)
            os.close(null)

    def _wanted(self) -> bool:
        return len(self._kept) < self._limit or (self._told is not None and self._allowed.left() > 0)

    def _take(self) -> int:
        piece = os.read(self._read, _PIECE)
        with self._lock:
            room = self._limit - len(self._kept)
            self._kept += piece[: max(0, room)]
            self._dropped += len(piece) - max(0, min(room, len(piece)))
        if piece and self._told is not None:
            if self._allowed.take(_weight(piece)):
                self._tell_missed()
                self._tell(piece)
            else:
                self._missed += len(piece)
        return len(piece)

    def _drop(self, null: int) -> int:
        try:
            count = os.splice(self._read, null, _LARGE_PIPE)
        except OSError:
            # A kernel that does not do that (gVisor's): whoever prints must not wait for that.
            count = len(os.read(self._read, _PIECE))
        with self._lock:
            self._dropped += count
        self._missed += count
        return count

    def _enlarge(self) -> None:
        """So that fewer reads are enough. A user has so many large pipes and no more."""
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self._read, fcntl.F_GETPIPE_SZ) < _LARGE_PIPE:
                fcntl.fcntl(self._read, fcntl.F_SETPIPE_SZ, _LARGE_PIPE)

    def _tell_missed(self) -> None:
        if self._missed and self._told is not None:
            missed, self._missed = self._missed, 0
            self._tell(f"\n[relbuild: {missed} bytes not shown: output exceeds {FOLLOW_RATE} bytes/s]\n".encode())

    def _tell(self, piece: bytes) -> None:
        if self._told is None:
            return
        try:
            self._told(piece)
        except Exception:
            # Whoever follows may be gone (a closed terminal); the container must not block for that.
            self._told = None


def _weight(piece: bytes) -> int:
    return len(piece) + _LINE * piece.count(b"\n") + _ODD * len(piece.translate(None, _TEXT))


class _Bucket:
    """Tokens that come back at a rate. One thread's."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most, self._tokens, self._then = rate, most, float(most), time.monotonic()

    def left(self) -> float:
        """The number of tokens now; less than none after a large take."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._then) * self._rate)
        self._then = now
        return self._tokens

    def take(self, count: float) -> bool:
        """Take `count` if there are any at all; were there?"""
        if self.left() <= 0:
            return False
        self._tokens -= count
        return True


def wait_for_exit(process: RunningCommand, timeout: float) -> bool:
    """Wait up to `timeout` seconds for a process to end; did it?"""
    return process.poll() is not None or (wait_for_pid(process.pid, timeout) and process.poll() is not None)


def wait_for_pid(pid: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the process `pid` to end; return False if it has not.

    Does not poll, so a short command costs no more than it takes.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))
    finally:
        os.close(handle)
