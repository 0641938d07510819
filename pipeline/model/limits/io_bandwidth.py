"""Throughput of volumes, in bytes per second each way."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import AfterStart, Limit, LimitReading, Observed, Started, compared, lacking, never
from pipeline.model.quantities import THROUGHPUT


def _set(rate: int | None, started: Started) -> None:
    started.throttle(rate)


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    flow, group = observed.flow, observed.group
    loose = next((space for space in observed.volumes if space.size is None), None)
    if flow.why or loose is not None:
        why = flow.why if loose is None else f"{loose.path} is not a separate file system: {loose.why}"
        yield LimitReading("io_bandwidth", asked, flow.rate, False, why)
    else:
        why = lacking(group, LIMIT.controller(group))
        yield compared("io_bandwidth", asked, flow.rate, slack=0, why=why)


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
    overruns=never,
    option="Bytes to and from each volume, each way, such as 20MiB/s.",
    controllers=("blkio", "io"),
)
