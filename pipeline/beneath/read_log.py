"""Log of the files that were opened, and the paths that were looked at, through this room.

A log tells afterwards what a piece of work depended on, without a list that somebody has to keep up to date.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


class ReadLog:
    """Files that were opened and paths that were looked at, each by its absolute path.

    `opened`: the status of each file at each time it was opened, with the time in seconds. `looked`: the types of what
    was at each path (as in st_mode, 0 if nothing was there).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.opened: dict[str, list[tuple[os.stat_result, float]]] = {}
        self.looked: dict[str, set[int]] = {}

    def note_opened(self, path: Path, status: os.stat_result) -> None:
        """Note that a file was opened for reading."""
        self.opened.setdefault(os.path.abspath(path), []).append((status, self._clock()))  # noqa: PTH100

    def note_looked(self, path: Path, kind: int) -> None:
        """Note what was found at a path."""
        self.looked.setdefault(os.path.abspath(path), set()).add(kind)  # noqa: PTH100


_logs: list[ReadLog] = []


@contextlib.contextmanager
def logged_reads(clock: Callable[[], float]) -> Iterator[ReadLog]:
    """Log what all threads of this process open and look at within the block."""
    log = ReadLog(clock)
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)


def note_opened(path: Path, handle: int) -> None:
    """Note a file that was opened for reading in all logs."""
    if _logs:
        status = os.fstat(handle)
        for log in _logs:
            log.note_opened(path, status)


def note_looked(path: Path, mode: int) -> None:
    """Note the mode of what was found at a path in all logs; 0: nothing was there."""
    for log in _logs:
        log.note_looked(path, stat.S_IFMT(mode))
