"""Network, in bits per second each way."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import Limit, LimitReading, Observed, OnLink, compared, never
from pipeline.model.quantities import BANDWIDTH

_BYTE = 8
"""Bits: the kernel counts bytes per second."""


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    wire = observed.wire
    if wire.why or wire.into is None or wire.out is None:
        yield LimitReading("bandwidth", asked, None, False, wire.why or "the kernel has no limit on the link")
    else:
        yield compared("bandwidth", asked, max(wire.into, wire.out), slack=_BYTE, why="see `tc qdisc`")


LIMIT: Limit[int | None] = Limit(
    name="bandwidth",
    rank=40,
    meaning="network, each way",
    example="100mbit",
    form=BANDWIDTH,
    default=None,
    kernel="a token bucket (`tbf`) at each end of the instance's link",
    set_by=OnLink(),
    read=_read,
    overruns=never,
    slack=_BYTE,
    option="Network of each, each way, such as 100mbit.",
)
