"""The `bandwidth` limit: network rate, in bits per second each way."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import (
    Limit,
    LimitReading,
    Observed,
    OnLink,
    compare_reading,
    no_overruns,
)
from pipeline.model.quantities import BANDWIDTH

_BYTE = 8
"""Bits: the kernel counts bytes per second."""


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    link_rates = observed.link_rates
    if link_rates.why or link_rates.into is None or link_rates.out is None:
        yield LimitReading("bandwidth", asked, None, False, link_rates.why or "the kernel has no limit on the link")
    else:
        yield compare_reading(
            "bandwidth", asked, max(link_rates.into, link_rates.out), slack=_BYTE, why="see `tc qdisc`"
        )


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
    overruns=no_overruns,
    slack=_BYTE,
    option="Network of each, each way, such as 100mbit.",
)
