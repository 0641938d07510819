"""Cache of values made from files, valid while all that was read for them is the same."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.beneath.folder import read_file
from pipeline.beneath.read_log import ReadLog, listing_digest, logged_reads, note_again

_Value = TypeVar("_Value")

_DOCUMENT_LIMIT = 16 << 20
"""Bytes of a file that is read again to compare it: more than any document may have."""


class ReadCache(Generic[_Value]):
    """Values by key, at most `most`, each used only if what was read for it is the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._guard = threading.Lock()
        self._kept: dict[Hashable, tuple[_Value, ReadLog, dict[str, str]]] = {}

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of `key`; call `make` if there is none, or what it read has changed."""
        known = self._kept.get(key)
        if known is not None and _holds(known[1], known[2]):
            note_again(known[1])
            return known[0]
        with logged_reads() as log:
            value = make()
        places = {path: os.path.realpath(path) for path in (*log.contents, *log.looked)}
        whole = not log.opened and _holds(log, places)
        with self._guard:
            self._kept.pop(key, None)
            if whole:
                while len(self._kept) >= self._most:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = value, log, places
        return value


def _holds(log: ReadLog, places: dict[str, str]) -> bool:
    """Return whether all that a log has is the same, and was at each time when it was read."""
    return (
        all(os.path.realpath(path) == place for path, place in places.items())
        and all(values == {_content(path)} for path, values in log.contents.items())
        and all(values == {_kind(path)} for path, values in log.looked.items())
        and all(values == {_names(path)} for path, values in log.listed.items())
    )


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
