"""Limits as asked for, beside what the kernel says it enforces. A limit that was not taken is never passed
over in silence."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.model.smoke import LimitReading, Limits
from pipeline.sandbox.cgroups import Group

_PAGE = 4096


def read_limits(limits: Limits, group: Group, *, pid: int, scratch: int | None) -> tuple[LimitReading, ...]:
    """One reading for each limit that was asked for. `scratch` is the size of the instance's tmpfs as the
    kernel tells it; `pid` its first process."""
    readings = []
    if limits.milli_cpus is not None:
        read = group.milli_cpus()
        readings.append(_compare("cpus", limits.milli_cpus, read, slack=1, why=_why(group, "cpu")))
    if limits.memory is not None:
        memory = _compare("memory", limits.memory, group.memory(), slack=_PAGE, why=_why(group, "memory"))
        both = group.memory_and_swap()
        if memory.enforced and both is None and _swap_exists():
            memory = LimitReading(
                "memory",
                limits.memory,
                memory.read,
                False,
                "this kernel does not count swap, and there is some",
            )
        elif memory.enforced and both is not None and both > limits.memory:
            memory = LimitReading("memory", limits.memory, both, False, "memory is limited, swap is not")
        readings.append(memory)
    if limits.pids is not None:
        readings.append(_compare("pids", limits.pids, group.pids(), slack=0, why=_why(group, "pids")))
    if limits.open_files is not None:
        read = _open_files(pid)
        readings.append(_compare("open_files", limits.open_files, read, slack=0, why="see `ulimit -Hn`"))
    if limits.bandwidth is not None:
        readings.append(
            LimitReading(
                "bandwidth",
                limits.bandwidth,
                None,
                False,
                "this version of relbuild does not limit bandwidth yet",
            )
        )
    readings.append(_compare("tmpfs", limits.tmpfs, scratch, slack=_PAGE, why="the kernel took another size"))
    return tuple(readings)


def _compare(name: str, asked: int, read: int | None, *, slack: int, why: str) -> LimitReading:
    """The kernel rounds (memory to pages, cpu to its period), so a difference below `slack` is agreement."""
    if read is None:
        return LimitReading(name, asked, None, False, why)
    close = abs(read - asked) < max(slack, 1)
    return LimitReading(name, asked, read, close, "" if close else f"the kernel has {read}; {why}")


def _why(group: Group, controller: str) -> str:
    if not group.hierarchies.has(controller):
        return f"the {controller} controller is not available here"
    return f"the {controller} controller has not taken it"


def _open_files(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    found = re.search(r"^Max open files\s+\d+\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def _swap_exists() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1
