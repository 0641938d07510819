"""Wait for the kernel to be ready to move processes between groups, before a runtime has to.

The kernel lets forks go on unhindered while nobody moves processes: the first move waits for an RCU grace period (7 to
14 ms), and others that follow at once do not (`cgroup_threadgroup_rwsem`, kernel/rcu/sync.c). A runtime moves its
container's first process some 15 ms after it was started, so a move that has no effect is made before, meanwhile.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline.sandbox.cgroups import Hierarchies


def wait_for_migration(pid: int, hierarchies: Hierarchies) -> None:
    """Move the process `pid` into the group where it is, and wait until the kernel has done so.

    It must be one that nobody moves. Nothing happens where its group cannot be found or written to.
    """
    controller = "" if hierarchies.unified is not None else "freezer"
    root = hierarchies.root_of(controller)
    if root is None:
        return
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and f"{path}/".startswith(f"{hierarchies.prefix}/"):
                members = root / path.removeprefix(hierarchies.prefix).lstrip("/") / "cgroup.procs"
                # What is mounted may be another part of the hierarchy than the path belongs to.
                if str(pid) in members.read_text().split():
                    members.write_text(str(pid))
