"""The `pids` limit: number of processes and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.model.limit import (
    ControlGroup,
    Counter,
    InResources,
    Limit,
    LimitReading,
    Observed,
    Overrun,
    Severity,
    compare_reading,
    format_times,
    missing_controller,
)
from pipeline.model.quantities import WholeNumber
from pipeline.model.usage import Usage

_UNASKED = 4096
"""Processes and threads where the recipe does not say: more than a server has, fewer than a fork bomb needs."""


def _resources(count: int, group: ControlGroup) -> Mapping[str, object]:
    return {"pids": {"limit": count}}


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    group = observed.group
    yield compare_reading(
        "pids", asked, group.number("pids", "pids.max"), slack=0, why=missing_controller(group, "pids")
    )


def _overruns(usage: Usage) -> Sequence[Overrun]:
    if not usage.pids_refused:
        return ()
    return (Overrun(Severity.REFUSED, "refused processes" + format_times(usage.pids_refused)),)


LIMIT: Limit[int | None] = Limit(
    name="pids",
    rank=30,
    meaning="processes and threads",
    example=200,
    form=WholeNumber(1, 1 << 22),
    default=None,
    kernel="`pids.max`",
    set_by=InResources(_resources, unasked=_UNASKED),
    read=_read,
    overruns=_overruns,
    counter=Counter("pids_refused", v1=("pids", "pids.events", "max"), v2=("pids", "pids.events", "max")),
    option="Processes and threads of each.",
    controllers=("pids", "pids"),
    doctor="limiting processes",
)
