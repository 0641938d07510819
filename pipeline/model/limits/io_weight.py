"""The `io_weight` limit: share of disk I/O under contention, 10 to 1000 (runtime-spec)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.model.limit import (
    AfterStart,
    ControlGroup,
    Limit,
    LimitReading,
    Observed,
    Started,
    compare_reading,
    missing_controller,
    no_overruns,
)
from pipeline.model.quantities import WholeNumber

_FILES = (
    ("io", "io.bfq.weight"),
    ("io", "io.weight"),
    ("blkio", "blkio.bfq.weight"),
    ("blkio", "blkio.weight"),
)
"""Files of the share, by controller (v2's is called io, v1's blkio); a machine has at most one of each pair that works,
bfq's own first."""


def _set(weight: int | None, started: Started) -> None:
    if weight is not None:
        set_weight(started.group, weight)


def set_weight(group: ControlGroup, weight: int) -> None:
    """Set the share where the kernel has one; `weight_of` tells whether it has."""
    for controller, file in _FILES:
        if group.write(controller, file, str(weight)):
            return


def weight_of(group: ControlGroup) -> int | None:
    """Share that the kernel has."""
    for controller, file in _FILES:
        words = (group.read(controller, file) or "").split()
        if words and words[-1].isdigit():
            return int(words[-1])
    return None


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    group = observed.group
    reading = compare_reading(
        "io_weight", asked, weight_of(group), slack=0, why=missing_controller(group, LIMIT.controller(group))
    )
    reason = observed.weightless() if reading.enforced else ""
    yield replace(reading, enforced=False, reason=reason) if reason else reading


LIMIT: Limit[int | None] = Limit(
    name="io_weight",
    rank=80,
    meaning="share of the disk beside others, of whom each has 100",
    example=100,
    form=WholeNumber(10, 1000),
    default=None,
    kernel="`blkio.bfq.weight` or `blkio.weight` (v1), `io.bfq.weight` or `io.weight` (v2)",
    set_by=AfterStart(_set),
    read=_read,
    overruns=no_overruns,
    share=True,
    controllers=("blkio", "io"),
)
