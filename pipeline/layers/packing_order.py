"""The order in which threads make segments.

One thread makes them in the layers' order, the others the largest first. Behind the threads each layer's tar is hashed
in the order of the layer. Whatever is hashed after the last segment was made keeps one processor busy alone, so a
thread goes ahead of the hash; a package that takes long is begun early by another, so that none is left for the end.
Once one that was begun early has no more room to wait in, all threads keep the order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from pipeline.layers.segments import Segment
from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A segment to be made.

    `place` is the numbers of its layer and in it, `size` its bytes of content; `future` gets what `make` returns.
    """

    place: tuple[int, int]
    size: int
    make: Callable[[], Segment]
    future: Future[Segment]


class PackingOrder:
    """Tasks that threads take one after the other. `layer_sizes` are the bytes of each layer.

    The largest layer comes first, because hashing it takes longest. Without `largest_first`, and while `stalled` (a
    segment that was begun early waits for its turn), all threads keep the order.
    """

    def __init__(
        self,
        tasks: Iterable[SegmentTask],
        layer_sizes: list[int],
        *,
        largest_first: bool,
        stalled: Callable[[], bool] = lambda: False,
    ) -> None:
        found = list(tasks)
        self._ordered = sorted(found, key=lambda task: (-layer_sizes[task.place[0]], task.place), reverse=True)
        self._by_size = sorted(found, key=lambda task: (task.size, *(-number for number in task.place)))
        if not largest_first:
            self._by_size = self._ordered
        self._taken: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._following = False
        self._stalled = stalled

    def run_one(self) -> None:
        """Take a task and do it; its future gets what comes of it. Raises nothing."""
        with self._lock:
            in_order = not self._following
            self._following = True
            task = self._next(self._ordered if in_order or self._stalled() else self._by_size)
        try:
            _fulfil(task.future, task.make)
        finally:
            if in_order:
                with self._lock:
                    self._following = False

    def _next(self, tasks: list[SegmentTask]) -> SegmentTask:
        while (task := tasks.pop()).place in self._taken:
            pass
        self._taken.add(task.place)
        return task


def _fulfil(future: Future[Any], make: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(make())
    except BaseException as error:
        future.set_exception(error)
