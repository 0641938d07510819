"""The lock of a directory mirror: shared by publishers, exclusive for pruning.

flock lets any number share a file for as long as they overlap, so one who wants it alone could wait for ever. That one
shuts a gate first, which all others pass on their way in. A process that holds the lock may take it again meanwhile
without passing the gate; otherwise it would wait for one who waits for it.
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
_counting = threading.Lock()


@contextlib.contextmanager
def hold_shared(folder: Path) -> Iterator[None]:
    """Hold the lock in `folder` together with others.

    Waits while another waits for it alone, or holds it.
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
def hold_exclusive(folder: Path, patience: float) -> Iterator[None]:
    """Hold the lock in `folder` alone. Raises TimeoutError after `patience` seconds."""
    until = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        with file_locked(folder / _GATE, patience=patience):
            stack.enter_context(file_locked(folder / _LOCK, patience=max(0.0, until - time.monotonic())))
        yield


def _count(folder: Path, change: int) -> None:
    with _counting:
        _held[folder] += change
        if not _held[folder]:
            del _held[folder]
