"""The control group of a container that an engine made (cgroups(7))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.cgroups import Cgroup, Hierarchies


@dataclass(frozen=True, slots=True)
class EngineCgroup(Cgroup):
    """A group outside of relbuild's own folders; it is read, and never changed or removed.

    `folders` are its folders by controller; "" is that of v2.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)

    def folder(self, controller: str) -> Path | None:
        """As `Cgroup` says."""
        return self.folders.get(controller, self.folders.get(""))

    def processes(self) -> set[int]:
        """As `Cgroup` says."""
        found: set[int] = set()
        for folder in set(self.folders.values()):
            try:
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
            except OSError:
                continue
        return found - {0}


def engine_cgroup(name: str, membership: str, hierarchies: Hierarchies) -> EngineCgroup:
    """Return the group of the process whose /proc/PID/cgroup is `membership`.

    Hierarchies in whose root it is are left out: the kernel moves a process that has ended there, and no engine leaves
    a container there, whose figures would be the whole machine's.
    """
    folders: dict[str, Path] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if path == "/":
            continue
        if not controllers and hierarchies.unified is not None:
            folders[""] = hierarchies.unified / path.lstrip("/")
        for controller in controllers.split(","):
            root = hierarchies.controllers.get(controller)
            if root is not None:
                folders[controller] = root / path.lstrip("/")
    return EngineCgroup(hierarchies, name, None, folders)
