"""The log of an instance: two files of limited size, which others can follow."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

LOG_FILE_LIMIT = 8 << 20
"""Bytes of `log`, after which it becomes `log.1`: as much as a smoke test keeps, so at most 16 MiB for an instance."""

_NEWEST, _OLDER = "log", "log.1"
_PIECE = 65536
_PAUSE = 0.1
"""Seconds between looks for new output."""


class LogFile:
    """A writer of an instance's output to `log`, which becomes `log.1` when it is full.

    What cannot be written (a full disk) is counted and left out; once there is room again, a line says how much.
    """

    def __init__(self, folder: Path, limit: int = LOG_FILE_LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._size = self._missed = 0
        self._file: BinaryIO | None = self._open()

    def __call__(self, piece: bytes) -> None:
        """Append a piece of output."""
        written = 0
        try:
            if self._missed:
                note = f"\n[relbuild: {self._missed} bytes not kept: the log could not be written]\n".encode()
                if self._append(note) < len(note):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._missed = 0
            if self._size and self._size + len(piece) > self._limit:
                self._rotate()
            while written < len(piece):
                written += self._append(piece[written:])
        except OSError:
            self._missed += len(piece) - written

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, piece: bytes) -> int:
        if self._file is None:  # Could not be opened after the last one was full.
            self._file = self._open()
        count = self._file.write(piece) or 0
        self._size += count
        return count

    def _rotate(self) -> None:
        self.close()
        (self._folder / _NEWEST).rename(self._folder / _OLDER)
        self._file = self._open()

    def _open(self) -> BinaryIO:
        handle = os.open(self._folder / _NEWEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(handle).st_size
        return os.fdopen(handle, "wb", buffering=0)


def read_log(
    folder: Path, *, tail: int | None = None, follow: bool = False, running: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """Yield the log of an instance in pieces, the last `tail` lines only if given.

    With `follow`, also what is printed from then on, until `running` returns False.
    """
    older, newest = _open_both(folder)
    try:
        if tail is None:
            yield from _pieces(older)
            yield from _pieces(newest)
        else:
            text = b"".join((*_pieces(older), *_pieces(newest)))
            yield b"".join(text.splitlines(keepends=True)[-tail:] if tail else ())
        while follow:
            alive = running()  # Asked before reading: what is printed until then is read below.
            yield from _pieces(newest)
            following = _newer(folder, newest)
            if following is not None:
                yield from _pieces(newest)  # What was written before it was renamed.
                if newest is not None:
                    newest.close()
                newest = following
            elif not alive:
                return
            else:
                time.sleep(_PAUSE)
    finally:
        for file in (older, newest):
            if file is not None:
                file.close()


def _pieces(file: BinaryIO | None) -> Iterator[bytes]:
    """Yield what is left in a file."""
    while file is not None and (piece := file.read(_PIECE)):
        yield piece


def _newer(folder: Path, file: BinaryIO | None) -> BinaryIO | None:
    """Open `log` if it is another file than `file`, else return None."""
    found = _open(folder / _NEWEST)
    if found is not None and file is not None and _same(found, file):
        found.close()
        return None
    return found


def _open_both(folder: Path) -> tuple[BinaryIO | None, BinaryIO | None]:
    """Open `log.1` and `log`; again if the one became the other meanwhile."""
    while True:
        newest, older = _open(folder / _NEWEST), _open(folder / _OLDER)
        if newest is None or older is None or not _same(newest, older):
            return older, newest
        newest.close()
        older.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
