"""The order in which threads make segments."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from pipeline.digest import Digest
from pipeline.layers.packing_order import PackingOrder, SegmentTask
from pipeline.layers.segments import Segment

SEGMENT = Segment(Digest.of(b""), 0, 0)


def order_of(
    sizes: dict[tuple[int, int], int], nested: set[tuple[int, int]], *, largest_first: bool, stalled: bool = False
) -> list[str]:
    """Return in which order segments are begun if, while those of `nested` are made, another thread takes one more."""
    begun: list[str] = []

    def make(place: tuple[int, int]) -> Segment:
        begun.append("{}.{}".format(*place))
        if place in nested:
            order.run_one()
        return SEGMENT

    tasks = [SegmentTask(place, size, lambda place=place: make(place), Future()) for place, size in sizes.items()]  # type: ignore[misc]
    layers = [sum(size for (layer, _), size in sizes.items() if layer == number) for number in range(2)]
    order = PackingOrder(tasks, layers, largest_first=largest_first, stalled=lambda: stalled)
    while len(begun) < len(tasks):
        order.run_one()
    assert all(task.future.result() == SEGMENT for task in tasks)
    return begun


SIZES = {(0, 0): 1, (0, 1): 2, (1, 0): 3, (1, 1): 4, (1, 2): 90}


def test_one_thread_keeps_the_order_from_the_largest_layer_on() -> None:
    assert order_of(SIZES, set(), largest_first=True) == ["1.0", "1.1", "1.2", "0.0", "0.1"]


def test_another_thread_takes_the_largest() -> None:
    assert order_of(SIZES, {(1, 0), (1, 1)}, largest_first=True) == ["1.0", "1.2", "1.1", "0.1", "0.0"]


def test_all_threads_keep_the_order_while_one_that_was_begun_early_waits() -> None:
    nested = {(1, 0), (1, 1)}
    assert order_of(SIZES, nested, largest_first=True, stalled=True) == ["1.0", "1.1", "1.2", "0.0", "0.1"]


def test_all_threads_keep_the_order_where_no_package_takes_long() -> None:
    assert order_of(SIZES, {(1, 0), (1, 1)}, largest_first=False) == ["1.0", "1.1", "1.2", "0.0", "0.1"]


def test_what_a_task_raises_is_in_its_future_and_the_next_goes_on() -> None:
    def fail() -> Segment:
        raise ValueError("damaged")

    failing = SegmentTask((0, 0), 1, fail, Future())
    cancelled = SegmentTask((0, 1), 1, fail, Future())
    good = SegmentTask((0, 2), 1, lambda: SEGMENT, Future())
    cancelled.future.cancel()
    order = PackingOrder([failing, cancelled, good], [3], largest_first=True)
    for _ in range(3):
        order.run_one()
    with pytest.raises(ValueError, match="damaged"):
        failing.future.result()
    assert good.future.result() == SEGMENT
