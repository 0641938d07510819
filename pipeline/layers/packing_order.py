"""The order in which threads do something for each segment: write its tree, or compress it.

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

from pipeline.lazy_dataclasses import dataclass


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """The work that a segment asks for.

    `place` is the numbers of its layer and in it, `size` its bytes of content; `future` gets what `make` returns. One
    that is not `ready` would wait, so others go before it.
    """

    place: tuple[int, int]
    size: int
    make: Callable[[], Any]
    future: Future[Any]
    ready: Callable[[], bool] = _always


class PackingOrder:
    """Tasks that threads take one after the other. `layer_sizes` are the bytes of each layer.

    `fulfil` gives a future what a function returns or raises. The largest layer comes first, because hashing it takes
    longest. Without `largest_first`, and while `stalled` (a
    segment that was begun early waits for its turn), all threads keep the order.
    """

    def __init__(
        self,
        tasks: Iterable[SegmentTask],
        layer_sizes: list[int],
        *,
        largest_first: bool,
        stalled: Callable[[], bool] = lambda: False,
        fulfil: Callable[[Future[Any], Callable[[], Any]], None] | None = None,
    ) -> None:
        found = list(tasks)
        self._ordered = sorted(found, key=lambda task: (-layer_sizes[task.place[0]], task.place), reverse=True)
        self._by_size = sorted(found, key=lambda task: (task.size, *(-number for number in task.place)))
        if not largest_first:
            self._by_size = self._ordered
        self._left = len(found)
        self._taken: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._following = False
        self._stalled = stalled
        self._fulfil = fulfil or _fulfil

    def run_one(self) -> bool:
        """Take a task and do it; its future gets what comes of it. Return False if none is left."""
        with self._lock:
            if not self._left:
                return False
            self._left -= 1
            in_order = not self._following
            self._following = True
            task = self._next(self._ordered if in_order or self._stalled() else self._by_size)
        try:
            self._fulfil(task.future, task.make)
        finally:
            if in_order:
                with self._lock:
                    self._following = False
        return True

    def _next(self, tasks: list[SegmentTask]) -> SegmentTask:
        while tasks[-1].place in self._taken:
            tasks.pop()
        left = (task for task in reversed(tasks) if task.place not in self._taken)
        task = next((task for task in left if task.ready()), tasks[-1])
        self._taken.add(task.place)
        return task


def _fulfil(future: Future[Any], make: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(make())
    except BaseException as error:
        future.set_exception(error)
