"""Limits as asked for, beside what the kernel says it enforces. A limit that was not taken is never passed
over in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.smoke import LimitReading, Limits
from pipeline.sandbox.cgroups import Group
from pipeline.sandbox.keeper import inodes_of
from pipeline.sandbox.throttling import Flow

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Space:
    """A file system of limited size, as the kernel has it. `size` None: it is not limited, for the reason `why`."""

    path: str
    size: int | None
    inodes: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """Bits per second into the instance and out of it, as the kernel has them; `why` they are not limited."""

    into: int | None = None
    out: int | None = None
    why: str = "the instance has no link that could be limited"


def read_limits(
    limits: Limits,
    group: Group,
    *,
    pid: int,
    scratch: Space | None,
    wire: Wire | None = None,
    volumes: Sequence[Space] = (),
    disk: Path | None = None,
    flow: Flow | None = None,
) -> tuple[LimitReading, ...]:
    """One reading for each limit that was asked for.

    `pid` is the instance's first process, `scratch` its tmpfs, `wire` its link, `disk` a folder on the disk that
    it writes to, `flow` what goes to and comes from its volumes; None where there is none.
    """
    readings = []
    if limits.milli_cpus is not None:
        read = group.milli_cpus()
        readings.append(_compare("cpus", limits.milli_cpus, read, slack=1, why=_why(group, "cpu")))
    if limits.memory is not None:
        readings.append(_memory(limits.memory, group))
    if limits.pids is not None:
        readings.append(_compare("pids", limits.pids, group.pids(), slack=0, why=_why(group, "pids")))
    if limits.open_files is not None:
        read = _open_files(pid)
        readings.append(_compare("open_files", limits.open_files, read, slack=0, why="see `ulimit -Hn`"))
    if limits.bandwidth is not None:
        readings.append(_bandwidth(limits.bandwidth, wire or Wire()))
    if limits.io_weight is not None:
        readings.append(_io_weight(limits.io_weight, group, disk))
    if limits.io_bandwidth is not None:
        readings.append(_io_bandwidth(limits.io_bandwidth, group, flow or Flow(), volumes))
    size, inodes = (scratch.size, scratch.inodes) if scratch is not None else (None, None)
    other = "the kernel took another size"
    readings.append(_compare("tmpfs", limits.tmpfs, size, slack=_PAGE, why=other))
    readings.append(_compare("tmpfs_inodes", inodes_of(limits.tmpfs), inodes, slack=0, why=other))
    readings += [_volume(limits.volume, space) for space in volumes]
    return tuple(readings)


def _memory(asked: int, group: Group) -> LimitReading:
    memory = _compare("memory", asked, group.memory(), slack=_PAGE, why=_why(group, "memory"))
    both = group.memory_and_swap()
    if memory.enforced and both is None and _swap_exists():
        why = "this kernel does not count swap, and there is some"
        return LimitReading("memory", asked, memory.read, False, why)
    if memory.enforced and both is not None and both > asked:
        return LimitReading("memory", asked, both, False, "memory is limited, swap is not")
    return memory


def _bandwidth(asked: int, wire: Wire) -> LimitReading:
    if wire.why or wire.into is None or wire.out is None:
        why = wire.why or "the kernel has no limit there"
        return LimitReading("bandwidth", asked, None, False, why)
    # The kernel counts bytes per second.
    return _compare("bandwidth", asked, max(wire.into, wire.out), slack=8, why="see `tc qdisc`")


def _io_bandwidth(asked: int, group: Group, flow: Flow, volumes: Sequence[Space]) -> LimitReading:
    controller = "io" if group.hierarchies.version == 2 else "blkio"
    loose = next((space for space in volumes if space.size is None), None)
    if flow.why or loose is not None:
        why = flow.why if loose is None else f"{loose.path} is no file system of its own: {loose.why}"
        return LimitReading("io_bandwidth", asked, flow.rate, False, why)
    return _compare("io_bandwidth", asked, flow.rate, slack=0, why=_why(group, controller))


def _io_weight(asked: int, group: Group, disk: Path | None) -> LimitReading:
    controller = "io" if group.hierarchies.version == 2 else "blkio"
    reading = _compare("io_weight", asked, group.io_weight(), slack=0, why=_why(group, controller))
    reason = _weightless(group, disk) if reading.enforced else ""
    return LimitReading("io_weight", asked, reading.read, False, reason) if reason else reading


def _weightless(group: Group, disk: Path | None) -> str:
    """Why the weights of groups do not matter to the disk that `disk` is on, or nothing."""
    if disk is None:
        return "it is not known which disk is written to"
    device = disk.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        entry = Path("/sys/dev/block", name).resolve(strict=True)
        whole = entry.parent if (entry / "partition").exists() else entry
        scheduler = re.search(r"\[([\w-]+)\]", (whole / "queue" / "scheduler").read_text())
    except OSError:
        return f"it is not known how the disk under {disk} is scheduled"
    if scheduler is not None and scheduler[1] == "bfq":
        return ""
    if group.hierarchies.unified is not None:
        costs = group.hierarchies.unified / "io.cost.qos"
        if costs.exists() and re.search(rf"^{name} .*enable=1", costs.read_text(), re.MULTILINE):
            return ""
    used = scheduler[1] if scheduler is not None else "nothing"
    return f"disk {name} is scheduled by {used}, which knows no weights; bfq does"


def _volume(asked: int, space: Space) -> LimitReading:
    """A file system's own tables take some of it, so less than what was asked for is agreement."""
    name = f"volume {space.path}"
    if space.size is None:
        return LimitReading(name, asked, None, False, space.why)
    fits = space.size <= asked
    return LimitReading(name, asked, space.size, fits, "" if fits else "it was made with more before")


def _compare(name: str, asked: int, read: int | None, *, slack: int, why: str) -> LimitReading:
    """The kernel rounds (memory to pages, cpu to its period), so a difference below `slack` is agreement."""
    if read is None:
        return LimitReading(name, asked, None, False, why)
    close = abs(read - asked) < max(slack, 1)
    return LimitReading(name, asked, read, close, "" if close else f"the kernel has {read}; {why}")


def _why(group: Group, controller: str) -> str:
    if not group.hierarchies.version:
        return f"no {controller} control group has been handed over to this user"
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
