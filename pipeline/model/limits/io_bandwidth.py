"""The `io_bandwidth` limit: throughput of volumes, in bytes per second each way."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import (
    AfterStart,
    Limit,
    LimitReading,
    Observed,
    Started,
    compare_reading,
    missing_controller,
    no_overruns,
)
from pipeline.model.quantities import THROUGHPUT


def _set(rate: int | None, started: Started) -> None:
    started.throttle(rate)


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    volume_rates, group = observed.volume_rates, observed.group
    loose = next((space for space in observed.volumes if space.size is None), None)
    if volume_rates.why or loose is not None:
        why = volume_rates.why if loose is None else f"{loose.path} is not a separate file system: {loose.why}"
        yield LimitReading("io_bandwidth", asked, volume_rates.rate, False, why)
    else:
        why = missing_controller(group, LIMIT.controller(group))
        yield compare_reading("io_bandwidth", asked, volume_rates.rate, slack=0, why=why)


LIMIT: Limit[int | None] = Limit(
    name="io_bandwidth",
    rank=90,
    meaning="bytes per second to and from each volume, each way",
    example="20MiB/s",
    form=THROUGHPUT,
    default=None,
    kernel="`blkio.throttle.read_bps_device` and `…write_bps_device` (v1), `io.max` (v2)",
    set_by=AfterStart(_set),
    read=_read,
    overruns=no_overruns,
    option="Bytes to and from each volume, each way, such as 20MiB/s.",
    controllers=("blkio", "io"),
)
