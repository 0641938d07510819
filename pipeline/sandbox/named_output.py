"""Output of a container that opens a named pipe by itself, read by the thread that waits.

A thread for each pipe, as `Capture` has, would wait for the interpreter's lock some times for each command.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.sandbox.output import BoundedOutput


class NamedOutput(BoundedOutput):
    """A named pipe at `path`, made for a block, that only the ID `owner` of the host may open.

    This process holds a write end, so that the output does not end before `finish`. Reading never blocks: who may write
    may read, too, and take away what has just been announced.
    """

    def __init__(self, path: Path, limit: int, owner: int) -> None:
        self._path = path
        os.mkfifo(path, 0o600)
        os.chown(path, owner, owner)
        # Without O_NONBLOCK it would wait for a writer.
        super().__init__(limit, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        self._write_end = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        self.close()
        self._path.unlink()

    def finish(self, within: float) -> bool:
        """Read until the last holder of the write end is gone; return whether that was in time."""
        self._release()
        poll = select.poll()
        poll.register(self.read_end, select.POLLIN)
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                pause = self.read_once()
                if pause is None:
                    return True
                time.sleep(pause)
        return False

    def _release(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1
