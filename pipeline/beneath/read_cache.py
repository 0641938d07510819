"""Cache of values made from files, valid while all that was read for them is the same."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.beneath.folder import read_file
from pipeline.beneath.read_log import ReadLog, listing_digest, logged_reads, note_again
from pipeline.lazy_dataclasses import dataclass

_Value = TypeVar("_Value")

_DOCUMENT_LIMIT = 16 << 20
"""Bytes of a file that is read again to compare it: more than any document may have."""


@dataclass(frozen=True, slots=True)
class ReadSnapshot:
    """All that was read for a value, to be compared later.

    Members are as in `ReadLog`, by absolute path.
    `places` are the resolved paths of those that were read, listed or looked for. `programs` and `modules` are those by
    which another process read it; they are not compared here.
    """

    contents: Mapping[str, str]
    looked: Mapping[str, int]
    listed: Mapping[str, str]
    places: Mapping[str, str]
    programs: Collection[str] = ()
    modules: Collection[str] = ()

    @classmethod
    def of(cls, log: ReadLog) -> ReadSnapshot | None:
        """Return the snapshot of a log; None if something was opened, or changed since it was read."""
        if log.opened or any(
            len(values) != 1 for read in (log.contents, log.looked, log.listed) for values in read.values()
        ):
            return None
        taken = cls(
            {path: digest for path, (digest,) in log.contents.items()},
            {path: kind for path, (kind,) in log.looked.items()},
            {path: names for path, (names,) in log.listed.items()},
            {path: os.path.realpath(path) for path in (*log.contents, *log.looked, *log.listed)},
            tuple(sorted(log.programs)),
            tuple(sorted(log.modules)),
        )
        return taken if taken.holds() else None

    def holds(self) -> bool:
        """Return whether all of it is the same now."""
        return (
            all(os.path.realpath(path) == place for path, place in self.places.items())
            and all(_content(path) == digest for path, digest in self.contents.items())
            and all(_kind(path) == kind for path, kind in self.looked.items())
            and all(_names(path) == names for path, names in self.listed.items())
        )

    def note(self) -> None:
        """Note it in all logs: it was compared, and need not be read again."""
        log = ReadLog(lambda: 0.0)
        log.contents = {path: {digest} for path, digest in self.contents.items()}
        log.looked = {path: {kind} for path, kind in self.looked.items()}
        log.listed = {path: {names} for path, names in self.listed.items()}
        log.programs, log.modules = set(self.programs), set(self.modules)
        note_again(log)


class ReadCache(Generic[_Value]):
    """Values by key, at most `most`, each used only if what was read for it is the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._guard = threading.Lock()
        self._kept: dict[Hashable, tuple[_Value, ReadSnapshot]] = {}

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of `key`; call `make` if there is none, or what it read has changed."""
        known = self._kept.get(key)
        if known is not None and known[1].holds():
            known[1].note()
            return known[0]
        with logged_reads() as log:
            value = make()
        self.put(key, value, ReadSnapshot.of(log))
        return value

    def put(self, key: Hashable, value: _Value, read: ReadSnapshot | None) -> None:
        """Keep the value of `key`, for which that was read; None: keep none."""
        with self._guard:
            self._kept.pop(key, None)
            if read is not None:
                while len(self._kept) >= self._most:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = value, read


def _content(path: str) -> str:
    try:
        return hashlib.sha256(read_file(Path(path), _DOCUMENT_LIMIT)).hexdigest()
    except OSError:
        return ""


def _kind(path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return 0


def _names(path: str) -> str:
    try:
        return listing_digest(sorted(os.listdir(path)))  # noqa: PTH208
    except OSError:
        return ""
