"""The `cpus` limit: processor time, in thousandths of a core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.model.limit import (
    ControlGroup,
    InResources,
    Limit,
    LimitReading,
    Observed,
    Overrun,
    Severity,
    compare_reading,
    missing_controller,
)
from pipeline.model.quantities import CPUS
from pipeline.model.usage import Usage

_PERIOD = 100_000
_SMALLEST_QUOTA = 1_000
"""Microseconds: less is refused by the kernel (sched-bwc.rst)."""

_THROTTLED_SHARE = 0.25
"""Throttled time, as a fraction of processor time, from which on it is reported."""


def _resources(milli_cpus: int, group: ControlGroup) -> Mapping[str, object]:
    quota = max(_SMALLEST_QUOTA, milli_cpus * _PERIOD // 1000)
    return {"cpu": {"quota": quota, "period": _PERIOD}}


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    yield compare_reading(
        "cpus", asked, milli_cpus(observed.group), slack=1, why=missing_controller(observed.group, "cpu")
    )


def milli_cpus(group: ControlGroup) -> int | None:
    """Thousandths of a core that a group may use; None: any."""
    if group.version == 2:
        quota, _, period = (group.read("cpu", "cpu.max") or "max 1").strip().partition(" ")
        return None if quota == "max" else round(int(quota) * 1000 / int(period))
    limit, span = group.number("cpu", "cpu.cfs_quota_us"), group.number("cpu", "cpu.cfs_period_us")
    return None if limit is None or limit < 0 or not span else round(limit * 1000 / span)


def _overruns(usage: Usage) -> Sequence[Overrun]:
    if usage.throttled_time and usage.cpu_time and usage.throttled_time >= usage.cpu_time * _THROTTLED_SHARE:
        text = f"CPU-throttled for {usage.throttled_time / 1e6:.1f} s"
        return (Overrun(Severity.SLOWED, text),)
    return ()


LIMIT: Limit[int | None] = Limit(
    name="cpus",
    field="milli_cpus",
    rank=10,
    meaning="processors",
    example=0.5,
    form=CPUS,
    default=None,
    kernel="`cpu.cfs_quota_us` (v1), `cpu.max` (v2)",
    set_by=InResources(_resources),
    read=_read,
    overruns=_overruns,
    slack=1,
    option="Processors of each, such as 0.5.",
    controllers=("cpu", "cpu"),
    doctor="limiting cores",
)
