"""Set a running instance's limits, and read them back from the kernel.

Each is declared in `pipeline.model.limits`. A limit that the kernel did not take is reported as not enforced.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import (
    AfterStart,
    AsFileSystem,
    AsRlimit,
    ControlGroup,
    FileSystemSize,
    InResources,
    LimitReading,
    LinkRates,
    OnLink,
    Started,
    VolumeRates,
)
from pipeline.model.limits import IN_STAGES, LIMITS, Limits
from pipeline.sandbox.cgroups import Cgroup
from pipeline.sandbox.io_limits import limit_io


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """State of a running instance that limits are read from (`pipeline.model.limit.Observed`).

    `pid` is its main process, `scratch` its /tmp, `link_rates` its link's rates, `disk` a folder on the disk that it
    writes to, `volume_rates` the throughput limits of its volumes; None where there is none.
    """

    group: Cgroup
    pid: int
    scratch: FileSystemSize | None
    link_rates: LinkRates = LinkRates()
    volumes: Sequence[FileSystemSize] = ()
    disk: Path | None = None
    volume_rates: VolumeRates = VolumeRates()

    def resource_limit(self, name: str) -> int | None:
        """Hard limit of its main process by the name in /proc/PID/limits; None if it has ended."""
        try:
            text = Path(f"/proc/{self.pid}/limits").read_text()
        except OSError:
            return None
        found = re.search(rf"^{re.escape(name)}\s+\d+\s+(\d+)", text, re.MULTILINE)
        return int(found[1]) if found else None

    def swap_exists(self) -> bool:
        """Return whether the host has swap space in use."""
        return len(Path("/proc/swaps").read_text().splitlines()) > 1

    def weightless(self) -> str:
        """Return the reason why I/O weights have no effect on the disk that it writes to, or ""."""
        return _weightless(self.group, self.disk)


@dataclass(frozen=True, slots=True)
class StartedInstance:
    """An instance that has just been started (`pipeline.model.limit.Started`).

    `folder` is its sandbox's, `devices` are its volumes' block devices as `st_dev`.
    """

    group: Cgroup
    folder: Path
    devices: Sequence[int]

    def throttle(self, rate: int | None) -> None:
        """Limit it to bytes per second to and from each volume; None: only let the kernel count."""
        limit_io(self.group, self.folder, self.devices, rate)


def read_limits(limits: Limits, measured: ObservedInstance) -> tuple[LimitReading, ...]:
    """Read back each limit that was asked for, in the order in which they are set.

    Where nothing was asked for, the limit that is then set is read back if its controller is missing: a report says
    what did not hold.
    """
    readings: list[LimitReading] = []
    for limit in IN_STAGES:
        asked = limits[limit]
        if asked is None and isinstance(limit.set_by, InResources):
            asked = None if measured.group.has(limit.controller(measured.group)) else limit.set_by.unasked
        if asked is not None:
            readings += limit.read(asked, measured)
    return tuple(readings)


def resources_of(limits: Limits, group: ControlGroup, *, all_of_them: bool = False) -> Mapping[str, object]:
    """Members of `linux.resources` that limit a container (runtime-spec, config-linux.md).

    Limits whose controller the machine lacks are left out, because a runtime starts nothing with them; they are read
    back as not enforced. With `all_of_them` they are in it: for what must not run without them.
    """
    found: dict[str, object] = {}
    for limit in LIMITS:
        match limit.set_by:
            case InResources(make, unasked):
                value = limits[limit]
                value = unasked if value is None else value
                if value is not None and (all_of_them or group.has(limit.controller(group))):
                    found.update(make(value, group))
            case AsRlimit() | OnLink() | AfterStart() | AsFileSystem():
                pass
            case other:
                assert_never(other)
    return found


def rlimits_of(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Return the resource limits (setrlimit(2)) of an instance's processes.

    Without CAP_SYS_RESOURCE, a process cannot have more than its hard limit; the reading then says so.
    """
    found = []
    for limit in LIMITS:
        if isinstance(limit.set_by, AsRlimit):
            value = limits[limit]
            value = limit.set_by.unasked if value is None else value
            _, hard = resource.getrlimit(getattr(resource, limit.set_by.kind))
            if value is not None:
                found.append((limit.set_by.kind, value if hard == resource.RLIM_INFINITY else min(value, hard)))
    return tuple(found)


def set_limits(limits: Limits, started: Started) -> None:
    """Set the limits that can only be set once the instance's processes run."""
    for limit in LIMITS:
        if isinstance(limit.set_by, AfterStart):
            limit.set_by.apply(limits[limit], started)


def _weightless(group: Cgroup, disk: Path | None) -> str:
    """Return the reason why I/O weights do not apply to the disk of the folder `disk`, or ""."""
    if disk is None:
        return "the disk of the store is unknown"
    device = disk.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        entry = Path("/sys/dev/block", name).resolve(strict=True)
        whole = entry.parent if (entry / "partition").exists() else entry
        scheduler = re.search(r"\[([\w-]+)\]", (whole / "queue" / "scheduler").read_text())
    except OSError:
        return f"the I/O scheduler of the disk under {disk} is unknown"
    if scheduler is not None and scheduler[1] == "bfq":
        return ""
    if group.hierarchies.unified is not None:
        costs = group.hierarchies.unified / "io.cost.qos"
        if costs.exists() and re.search(rf"^{name} .*enable=1", costs.read_text(), re.MULTILINE):
            return ""
    used = scheduler[1] if scheduler is not None else "nothing"
    return f"the I/O scheduler of disk {name}, {used}, does not support weights; bfq does"
