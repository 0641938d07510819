"""Log of what was read through this room: files, names in folders, paths looked for.

A log tells afterwards what a piece of work depended on, without a list that somebody has to keep up to date.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


class ReadLog:
    """A log of reads by absolute path; several values mean that something changed meanwhile.

    `contents`: digests of files that were read whole. `opened`: the status of a file at each time it was opened to be
    read piece by piece, with the time in seconds. `looked`: the types of what was at a path (as in st_mode, 0 if
    nothing was there). `listed`: digests of the names in a folder. `programs` and `modules`: files and modules by which
    another process made what this one took over.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.contents: dict[str, set[str]] = {}
        self.opened: dict[str, list[tuple[os.stat_result, float]]] = {}
        self.looked: dict[str, set[int]] = {}
        self.listed: dict[str, set[str]] = {}
        self.programs: set[str] = set()
        self.modules: set[str] = set()

    def note_opened(self, path: str, status: os.stat_result) -> None:
        """Note that a file was opened, to be read piece by piece."""
        self.opened.setdefault(path, []).append((status, self._clock()))

    def add(self, other: ReadLog) -> None:
        """Add what is in another log."""
        for name in ("contents", "looked", "listed"):
            own = getattr(self, name)
            for path, values in getattr(other, name).items():
                own.setdefault(path, set()).update(values)
        for path, times in other.opened.items():
            self.opened.setdefault(path, []).extend(times)
        self.programs |= other.programs
        self.modules |= other.modules


_logs: list[ReadLog] = []


@contextlib.contextmanager
def logged_reads(clock: Callable[[], float] = lambda: 0.0) -> Iterator[ReadLog]:
    """Log what all threads of this process read within the block."""
    log = ReadLog(clock)
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)


def logged_path(path: Path) -> str:
    """Return the absolute path by which a log names a path.

    One with `..` stays as it is: behind a link to a folder, `..` leads elsewhere than its text says.
    """
    if ".." in path.parts:
        return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    return os.path.abspath(path)  # noqa: PTH100  not resolved: links are compared


def note_read(path: Path, data: bytes) -> None:
    """Note a file that was read whole in all logs."""
    if _logs:
        name, digest = logged_path(path), hashlib.sha256(data).hexdigest()
        for log in tuple(_logs):  # Other threads begin and end theirs.
            log.contents.setdefault(name, set()).add(digest)


def note_opened(path: Path, handle: int) -> None:
    """Note a file that was opened to be read piece by piece in all logs."""
    if _logs:
        name, status = logged_path(path), os.fstat(handle)
        for log in tuple(_logs):
            log.note_opened(name, status)


def note_looked(path: Path, mode: int) -> None:
    """Note the mode of what was found at a path in all logs; 0: nothing was there."""
    for log in tuple(_logs):
        log.looked.setdefault(logged_path(path), set()).add(stat.S_IFMT(mode))


def note_again(log: ReadLog) -> None:
    """Note in all logs what was read before, and need not be read again."""
    for one in tuple(_logs):
        one.add(log)


def is_there(path: Path) -> bool:
    """Return whether something is at a path that a person named."""
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0
    note_looked(path, mode)
    return mode != 0


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder that a person named, sorted. Raises OSError."""
    names = sorted(os.listdir(folder))  # noqa: PTH208  names, not paths
    for log in tuple(_logs):
        log.listed.setdefault(logged_path(folder), set()).add(listing_digest(names))
    return names


def listing_digest(names: Iterable[str]) -> str:
    """Return the digest of the sorted names in a folder."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
