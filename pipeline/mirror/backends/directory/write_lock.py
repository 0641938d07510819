"""The lock of a directory mirror: shared by publishers, exclusive for pruning.

With flock, processes that share a lock in overlapping turns could make one that wants it exclusively wait for ever. So
there are two files: whoever wants `prune` exclusively first locks `gate` exclusively, and all others take `gate` for a
moment before they share `prune`. A process that shares the lock already takes it again without `gate`: otherwise it
would deadlock with one that waits for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.mirror.atomic_files import file_locked

_GATE, _LOCK = "gate", "prune"

_held: Counter[Path] = Counter()
_moving: Counter[Path] = Counter()
"""Folder of a repository → times that this process moves its tags."""

_counting = threading.Lock()


@contextlib.contextmanager
def hold_shared(folder: Path) -> Iterator[None]:
    """Share the lock in `folder` within the block.

    Waits while a process holds it exclusively or waits to do so.
    """
    with _counting:
        again = _held[folder] > 0
    if not again:
        with file_locked(folder / _GATE, shared=True):
            pass
    with file_locked(folder / _LOCK, shared=True):
        _count(folder, 1)
        try:
            yield
        finally:
            _count(folder, -1)


@contextlib.contextmanager
def hold_exclusive(folder: Path, timeout: float) -> Iterator[None]:
    """Hold the lock in `folder` exclusively within the block.

    Raises TimeoutError after `timeout` seconds.
    """
    until = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        with file_locked(folder / _GATE, timeout=timeout):
            stack.enter_context(file_locked(folder / _LOCK, timeout=max(0.0, until - time.monotonic())))
        yield


def _count(folder: Path, change: int) -> None:
    with _counting:
        _held[folder] += change
        if not _held[folder]:
            del _held[folder]


def count_moving(folder: Path, change: int) -> None:
    """Record that this process begins (1) or ends (-1) to move a repository's tags."""
    with _counting:
        _moving[folder] += change
        if not _moving[folder]:
            del _moving[folder]


def is_moving(folder: Path) -> bool:
    """Return whether this process moves tags of the repository in `folder`."""
    return bool(_moving[folder])
