"""Capture of a container's output through a pipe, up to a bound, by a reading thread.

Runtimes set no bound. A flood costs the reader little: reads per second are limited, for which the pipe is enlarged;
output that is neither kept nor followed is spliced to /dev/null in the kernel; and a follower gets a limited rate.
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
"""Size of the pipe in bytes once there is a flood: the most for an ordinary user (pipe(7), pipe-max-size)."""

_READS = 200
"""Reads per second, after a burst of as many. With a large pipe that is 200 MB/s, more than any server logs."""

_PAUSE = 1 / _READS

FOLLOW_RATE = 1 << 20
"""Bytes per second that a follower gets, after a burst of as many: more than a person reads."""

_LINE_COST, _CONTROL_COST = 64, 8
"""Bytes that each line, and each byte that is no printable ASCII, count for in addition: a terminal is slower there."""

_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


class RunningCommand(Protocol):
    """A command that `pipeline.process.start` has started."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class BoundedOutput:
    """Output read from a pipe, up to `limit` bytes; the rest is counted and dropped.

    `follow` gets every piece as it comes, also beyond the limit, but not more than FOLLOW_RATE bytes per second; then
    it gets a line that says how much was left out. If it raises, it gets no more.
    """

    def __init__(self, limit: int, read_end: int, follow: Callable[[bytes], None] | None = None) -> None:
        self.read_end = read_end
        self._limit = limit
        self._follower = follow
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._dropped = 0
        self._missed = 0
        self._allowed = _Bucket(FOLLOW_RATE, FOLLOW_RATE)
        self._reads = _Bucket(_READS, _READS)
        self._null = -1

    def read_once(self) -> float | None:
        """Read a piece; return the seconds until the next may be read, or None at the end.

        Waits for one, unless the read end does not block.
        """
        try:
            count = self._take() if self._wanted() else self._drop()
        except BlockingIOError:
            return 0.0
        if not count:
            self._report_missed()
            return None
        if self._reads.take(1):
            return 0.0
        self._enlarge()
        return _PAUSE

    def close(self) -> None:
        """Close the read end."""
        os.close(self.read_end)
        if self._null >= 0:
            os.close(self._null)

    @property
    def kept(self) -> bytes:
        """The output so far, up to the limit."""
        with self._lock:
            return bytes(self._kept)

    @property
    def log(self) -> bytes:
        """The kept bytes, and a last line that says how much was dropped, if anything was."""
        kept, dropped = self.kept, self.dropped
        return kept + f"\n[relbuild: output limit reached, {dropped} bytes dropped]\n".encode() if dropped else kept

    @property
    def dropped(self) -> int:
        """Bytes beyond the limit."""
        with self._lock:
            return self._dropped

    def _wanted(self) -> bool:
        return len(self._kept) < self._limit or (self._follower is not None and self._allowed.left() > 0)

    def _take(self) -> int:
        piece = os.read(self.read_end, _PIECE)
        with self._lock:
            room = self._limit - len(self._kept)
            self._kept += piece[: max(0, room)]
            self._dropped += len(piece) - max(0, min(room, len(piece)))
        if piece and self._follower is not None:
            if self._allowed.take(_cost(piece)):
                self._report_missed()
                self._tell(piece)
            else:
                self._missed += len(piece)
        return len(piece)

    def _drop(self) -> int:
        if self._null < 0:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            flags = 0 if os.get_blocking(self.read_end) else os.SPLICE_F_NONBLOCK
            count = os.splice(self.read_end, self._null, _LARGE_PIPE, None, None, flags)
        except OSError:
            # A kernel without splice (gVisor's): read instead, so that the writer does not block.
            count = len(os.read(self.read_end, _PIECE))
        with self._lock:
            self._dropped += count
        self._missed += count
        return count

    def _enlarge(self) -> None:
        """Enlarge the pipe, so that fewer reads are enough. The kernel limits large pipes per user."""
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self.read_end, fcntl.F_GETPIPE_SZ) < _LARGE_PIPE:
                fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, _LARGE_PIPE)

    def _report_missed(self) -> None:
        if self._missed and self._follower is not None:
            missed, self._missed = self._missed, 0
            self._tell(f"\n[relbuild: {missed} bytes not shown: output exceeds {FOLLOW_RATE} bytes/s]\n".encode())

    def _tell(self, piece: bytes) -> None:
        if self._follower is None:
            return
        try:
            self._follower(piece)
        except Exception:
            # The follower's terminal may be closed; the container must not block for that.
            self._follower = None


class HeldOutput:
    """A follower that hands its output on to `follow` once it is released.

    A runtime and the container that it starts write to the same pipe. Why a container did not start is told as an
    error, and not as if the container had printed it.
    """

    def __init__(self, follow: Callable[[bytes], None]) -> None:
        self._follow = follow
        self._held: list[bytes] | None = []
        self._lock = threading.Lock()

    def __call__(self, piece: bytes) -> None:
        """Keep or hand on a piece; raises what `follow` raises."""
        with self._lock:
            if self._held is None:
                self._follow(piece)
            else:
                self._held.append(piece)  # At most what a follower gets until a start fails: FOLLOW_RATE.

    def release(self) -> None:
        """Hand on what was kept, and from now on everything."""
        with self._lock:
            held, self._held = self._held, None
            with contextlib.suppress(Exception):  # A closed terminal: the next piece raises it for the reading thread.
                for piece in held or ():
                    self._follow(piece)


class Capture(BoundedOutput):
    """A pipe's write end for a container, and a thread that reads the other end.

    `uid` and `gid` are the pipe's owner on the host: a program in the container may open /dev/stdout again, which the
    kernel checks against that owner. `follow` is called in the reading thread.

    At its end, output is read until the last holder of the write end is gone, or for at most `last` seconds: a process
    that outlives the command, such as a client's daemon, may keep it.
    """

    def __init__(
        self,
        limit: int,
        *,
        uid: int,
        gid: int,
        follow: Callable[[bytes], None] | None = None,
        last: float | None = None,
    ) -> None:
        read_end, self.write_end = os.pipe()
        super().__init__(limit, read_end, follow)
        self._last = last
        os.fchown(read_end, uid, gid)
        os.fchown(self.write_end, uid, gid)
        self._thread = threading.Thread(target=self._follow, name="capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        self._thread.join(self._last)

    def started(self) -> None:
        """Close this process's copy of the write end, once the container has its own."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def finish(self) -> None:
        """Wait until all output has been read.

        Ends when the last holder of the write end is gone.
        """
        self._thread.join()

    def catch_up(self, within: float) -> None:
        """Wait like `finish` for at most `within` seconds: a process may still hold the write end."""
        self._thread.join(within)

    def _follow(self) -> None:
        try:
            while (pause := self.read_once()) is not None:
                if pause:
                    time.sleep(pause)
        finally:
            self.close()


def _cost(piece: bytes) -> int:
    return len(piece) + _LINE_COST * piece.count(b"\n") + _CONTROL_COST * len(piece.translate(None, _TEXT))


class _Bucket:
    """A token bucket, used by one thread."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most, self._tokens, self._then = rate, most, float(most), time.monotonic()

    def left(self) -> float:
        """Return the number of tokens now; negative after a large take."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._then) * self._rate)
        self._then = now
        return self._tokens

    def take(self, count: float) -> bool:
        """Take `count` tokens if there are any at all; return whether there were."""
        if self.left() <= 0:
            return False
        self._tokens -= count
        return True


def wait_for_exit(process: RunningCommand, timeout: float) -> bool:
    """Wait up to `timeout` seconds for a process to end; return whether it has."""
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
