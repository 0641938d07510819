"""What containers print, read as it comes and kept up to a bound. A runtime bounds nothing: the reader must."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

_PIECE = 65536


class Running(Protocol):
    """A command that `pipeline.process.start` has started."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Capture:
    """A pipe's write end for a container, and a thread that reads the other end. The first `limit` bytes are
    kept; the rest is counted and dropped, so that a flood neither blocks the container nor fills anything.

    `owner` is who the pipe belongs to on the machine: a program in the container may open /dev/stdout anew,
    which the kernel checks against the pipe's owner. `follow` gets every piece as it comes, also beyond the
    limit, in the reading thread; if it raises, it gets no more.
    """

    def __init__(self, limit: int, *, uid: int, gid: int, follow: Callable[[bytes], None] | None = None) -> None:
        self._limit = limit
        self._told = follow
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._dropped = 0
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
        """Wait until all that was printed is here. Ends when the last holder of the write end is gone."""
        self._thread.join()

    def catch_up(self, within: float) -> None:
        """The same, but for at most `within` seconds: something may still hold the write end."""
        self._thread.join(within)

    @property
    def kept(self) -> bytes:
        """What was printed so far, up to the limit."""
        with self._lock:
            return bytes(self._kept)

    @property
    def dropped(self) -> int:
        """Bytes beyond the limit."""
        with self._lock:
            return self._dropped

    def _follow(self) -> None:
        with contextlib.closing(os.fdopen(self._read, "rb", buffering=0)) as pipe:
            while piece := pipe.read(_PIECE):
                with self._lock:
                    room = self._limit - len(self._kept)
                    self._kept += piece[: max(0, room)]
                    self._dropped += len(piece) - max(0, min(room, len(piece)))
                self._tell(piece)

    def _tell(self, piece: bytes) -> None:
        if self._told is None:
            return
        try:
            self._told(piece)
        except Exception:
            # Whoever follows may be gone (a closed terminal); the container must not block for that.
            self._told = None


def wait(process: Running, timeout: float) -> bool:
    """Wait up to `timeout` seconds for a process to end; did it?"""
    return process.poll() is not None or (ends(process.pid, timeout) and process.poll() is not None)


def ends(pid: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the process `pid` to end; did it? Does not poll, so a short command
    costs no more than it takes."""
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
