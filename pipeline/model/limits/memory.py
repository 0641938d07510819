"""The `memory` limit: memory and swap together, in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.model.limit import (
    PAGE_SIZE,
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
from pipeline.model.quantities import MEMORY
from pipeline.model.usage import Usage


def _resources(size: int, group: ControlGroup) -> Mapping[str, object]:
    return {"memory": {"limit": size, **({"swap": size} if group.limits_swap else {})}}


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    group = observed.group
    reading = compare_reading("memory", asked, _memory(group), slack=PAGE_SIZE, why=missing_controller(group, "memory"))
    both = _memory_and_swap(group)
    if reading.enforced and both is None and observed.swap_exists():
        reading = LimitReading(
            "memory", asked, reading.read, False, "this kernel does not account for swap, and swap is enabled"
        )
    elif reading.enforced and both is not None and both > asked:
        reading = LimitReading("memory", asked, both, False, "memory is limited, swap is not")
    yield reading


def _memory(group: ControlGroup) -> int | None:
    return group.number("memory", "memory.limit_in_bytes" if group.version == 1 else "memory.max")


def _memory_and_swap(group: ControlGroup) -> int | None:
    """Return the limit of memory and swap together; v2 limits swap alone, so both are added."""
    if group.version == 1:
        return group.number("memory", "memory.memsw.limit_in_bytes")
    swap, memory = group.number("memory", "memory.swap.max"), _memory(group)
    return None if swap is None or memory is None else swap + memory


def _overruns(usage: Usage) -> Sequence[Overrun]:
    if not usage.oom_kills:
        return ()
    return (Overrun(Severity.KILLED, f"killed{format_times(usage.oom_kills)}: out of memory"),)


LIMIT: Limit[int | None] = Limit(
    name="memory",
    rank=20,
    meaning="memory and swap together",
    example="1GiB",
    form=MEMORY,
    default=None,
    kernel="`memory.limit_in_bytes` and `memory.memsw.limit_in_bytes` (v1), `memory.max` and `memory.swap.max` (v2)",
    set_by=InResources(_resources),
    read=_read,
    overruns=_overruns,
    counter=Counter(
        "oom_kills", v1=("memory", "memory.oom_control", "oom_kill"), v2=("memory", "memory.events", "oom_kill")
    ),
    slack=PAGE_SIZE,
    option="Memory of each, such as 512MiB.",
    controllers=("memory", "memory"),
    doctor="limiting memory",
)
