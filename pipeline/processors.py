"""Processors that this process may use: by affinity, and by its control groups' quotas."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNTS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_processors() -> float:
    """Return how many there are: half of one's time is 0.5.

    A quota that the system does not tell is none.
    """
    return min([float(len(os.sched_getaffinity(0))), *_quotas()])


def whole_processors() -> int:
    """Return how many threads use all of them: at least 1, and 2 if 1.5 are usable."""
    return max(1, math.ceil(usable_processors()))


def _quotas() -> Iterator[float]:
    """Yield the quotas of this process's control groups, and of those above them."""
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # In a container, the place may be one of the host's, and the group is what is mounted.
            mount = _mount(controllers)
            group = mount / place.strip("/")
            for folder in (group, *group.parents):
                yield from _quota(folder)
                if folder == mount:
                    break


def _mount(controllers: str) -> Path:
    """Return the folder where a hierarchy of control groups is mounted.

    Linux 3.10 lists `cpuacct,cpu` of one that is mounted as `cpu,cpuacct`, to which links lead from each name.
    """
    named = _MOUNTS / controllers
    if "," not in controllers:
        return named
    places = (named, _MOUNTS / ",".join(sorted(controllers.split(","))), _MOUNTS / "cpu")
    return next(filter(Path.is_dir, places), named)


def _quota(group: Path) -> Iterator[float]:
    """Yield a group's quota, if it has one; `max` (version 2) and -1 (version 1) are none."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        spent = int((group / "cpu.cfs_quota_us").read_text())
        if spent > 0:
            yield spent / int((group / "cpu.cfs_period_us").read_text())
