"""Control groups v1, hybrid and v2: read limits back, read usage, kill, remove.

The hierarchies that the host has mounted are used. Every container's group is `/relbuild/ID` in each. Sources: the
kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits import LIMITS
from pipeline.model.usage import Usage
from pipeline.sandbox.io_counters import parse_io_bytes
from pipeline.sandbox.pidns_tracking import command_pids, container_pids
from pipeline.sandbox.rootless import LEAF_CGROUP, in_user_namespace, own_group

PARENT_CGROUP = "relbuild"
"""Folder of relbuild's groups in every hierarchy. It is never removed; it is empty when nothing runs."""

_V1 = ("cpu", "cpuacct", "memory", "pids", "freezer", "devices", "cpuset", "blkio", "hugetlb", "net_cls")
_KILL_TIMEOUT = 10.0
"""Seconds until a killed group must be empty. A process that is stuck in the kernel may take some."""


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The mount points of the control group hierarchies.

    `controllers` maps v1 controllers to their hierarchy; it is empty on a machine with v2 only. `unified` is v2's
    root, where v2 has the controllers; `beside` is v2's root on a hybrid host, where runtimes make groups too, which
    limit nothing.
    """

    controllers: Mapping[str, Path] = field(default_factory=dict)
    unified: Path | None = None
    beside: Path | None = None
    prefix: str = ""
    """The path of `unified` in the hierarchy, if it is a part that was delegated to an ordinary user."""

    @property
    def version(self) -> int:
        """1 or 2; 0 where this user may not use any."""
        if self.unified is None and not self.controllers:
            return 0
        return 2 if self.unified is not None else 1

    def has(self, controller: str) -> bool:
        """Return whether this controller can limit containers."""
        if self.unified is None:
            return controller in self.controllers
        return controller in _text(self.unified / "cgroup.controllers").split()

    def roots(self) -> tuple[Path, ...]:
        """Every hierarchy, once."""
        all_of_them = (self.unified, *self.controllers.values(), self.beside)
        return tuple(dict.fromkeys(root for root in all_of_them if root is not None))

    def root_of(self, controller: str) -> Path | None:
        """Return the hierarchy of one controller."""
        return self.unified or self.controllers.get(controller)


def usable_hierarchies() -> Hierarchies:
    """Return the hierarchies in which this user may make groups, or empty ones.

    In a user namespace it may where `/relbuild` in each was delegated to it, and on v2 below its own group if that was
    (systemd's `Delegate=`) and `rootless.enter_user_namespace` could leave it for a leaf. Raises EnvironmentLacking
    `no-cgroups`.
    """
    found = mounted_hierarchies()
    machine_root = os.geteuid() == 0 and not in_user_namespace()
    if machine_root or all(_writable(root) for root in found.roots()):
        return found
    own = own_group()
    if found.unified is not None and own.name == LEAF_CGROUP:
        ours = found.unified / own.parent.relative_to("/")
        if os.access(ours, os.W_OK):
            return Hierarchies({}, ours, prefix=str(own.parent).rstrip("/"))
    return Hierarchies()


def _writable(root: Path) -> bool:
    return os.access(root / PARENT_CGROUP if (root / PARENT_CGROUP).exists() else root, os.W_OK)


def mounted_hierarchies(mountinfo: str | None = None) -> Hierarchies:
    """Return the hierarchies that are mounted (proc_pid_mountinfo(5)).

    Raises EnvironmentLacking `no-cgroups`.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split()
        where, options = Path(fields[4]), rest[-1].split(",")
        if kind == "cgroup2":
            unified = unified or where
        elif kind == "cgroup":
            for option in options:
                if option in _V1 or option == "name=systemd":
                    controllers.setdefault(option, where)
    if "memory" in controllers or "pids" in controllers:
        # Hybrid: v2 is mounted beside v1, without controllers; runc uses v1 for all.
        return Hierarchies(controllers, beside=unified)
    if unified is None:
        raise EnvironmentLacking(
            "no-cgroups", "no control group file system is mounted", hint="mount cgroup2 at /sys/fs/cgroup"
        )
    return Hierarchies({}, unified)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One container's control group."""

    hierarchies: Hierarchies
    name: str
    files: Path | None = None
    """The sandbox's folder, by whose PID files processes are found where there are no control groups."""

    @property
    def path(self) -> str:
        """The path for `linux.cgroupsPath` (runtime-spec); "" where there are no control groups."""
        return f"{self.hierarchies.prefix}/{PARENT_CGROUP}/{self.name}" if self.hierarchies.version else ""

    def folder(self, controller: str) -> Path | None:
        """Return the group's folder in one controller's hierarchy."""
        root = self.hierarchies.root_of(controller)
        return None if root is None else root / PARENT_CGROUP / self.name

    def read(self, controller: str, file: str) -> str | None:
        """Return a file's text, or None if there is none."""
        folder = self.folder(controller)
        text = "" if folder is None else _text(folder / file)
        return text or None

    def write(self, controller: str, file: str, text: str) -> bool:
        """Write to a controller's file; return False if there is no such file.

        A value that the kernel refuses is not an error here: read it back.
        """
        folder = self.folder(controller)
        if folder is None or not (folder / file).exists():
            return False
        with contextlib.suppress(OSError):
            (folder / file).write_text(text)
        return True

    def number(self, controller: str, file: str) -> int | None:
        """Number in a file, or None."""
        text = (self.read(controller, file) or "").strip()
        return int(text) if text.lstrip("-").isdigit() else None

    def entry(self, controller: str, file: str, key: str) -> int | None:
        """Number in the line of a file that begins with `key`, or None."""
        for line in (self.read(controller, file) or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key and value.strip().isdigit():
                return int(value)
        return None

    @property
    def version(self) -> int:
        """1 or 2; 0 where this user may use none."""
        return self.hierarchies.version

    def has(self, controller: str) -> bool:
        """Tell whether this controller can limit it."""
        return self.hierarchies.has(controller)

    @property
    def limits_swap(self) -> bool:
        """True if this kernel accounts for swap.

        If it does not, the runtime must not be told to limit swap.
        """
        root = self.hierarchies.root_of("memory")
        if root is None:
            return False
        if self.hierarchies.version == 1:
            return (root / "memory.memsw.limit_in_bytes").exists()
        # v2's root group has no limits; a kernel that counts swap has the file in every other group with the
        # controller, so one is created (found in ci/vm: where there was none yet, swap stayed unlimited).
        with contextlib.suppress(OSError):
            (root / PARENT_CGROUP).mkdir(exist_ok=True)
            (root / "cgroup.subtree_control").write_text("+memory")
        return (root / PARENT_CGROUP / "memory.swap.max").exists()

    # --- usage ---------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Return the resource usage so far.

        Read it before the group is removed.
        """
        counted = {limit.counter.figure: limit.counter.read(self) for limit in LIMITS if limit.counter is not None}
        oom_kills, pids_refused = counted.pop("oom_kills", None), counted.pop("pids_refused", None)
        others = tuple((figure, count) for figure, count in counted.items() if count is not None)
        if self.hierarchies.version == 2:
            return Usage(
                self.number("memory", "memory.peak"),
                self.entry("cpu", "cpu.stat", "usage_usec"),
                self.entry("cpu", "cpu.stat", "throttled_usec"),
                self.number("pids", "pids.peak"),
                oom_kills,
                pids_refused,
                *parse_io_bytes(self.read("io", "io.stat")),
                counted=others,
            )
        nanoseconds = self.number("cpuacct", "cpuacct.usage")
        throttled = self.entry("cpu", "cpu.stat", "throttled_time")
        return Usage(
            self.number("memory", "memory.max_usage_in_bytes"),
            None if nanoseconds is None else nanoseconds // 1000,
            None if throttled is None else throttled // 1000,
            self.number("pids", "pids.peak"),
            oom_kills,
            pids_refused,
            *parse_io_bytes(self.read("blkio", "blkio.throttle.io_service_bytes_recursive")),
            counted=others,
        )

    # --- life ----------------------------------------------------------------------------------

    def processes(self) -> set[int]:
        """Processes in the group and below."""
        if not self.hierarchies.version:
            if self.files is None:
                return set()
            _, _, part = self.name.partition("/")
            if part.startswith("exec"):
                return command_pids(self.files / f"{part}.pid")
            return container_pids(self.files)
        return {pid for root in self.hierarchies.roots() for pid in _pids(root / PARENT_CGROUP / self.name)}

    def kill(self) -> None:
        """Kill every process in the group and below, and wait until they have ended.

        Raises EnvironmentLacking `processes-remain` if they do not end in time.
        """
        deadline = time.monotonic() + _KILL_TIMEOUT
        pause = 0.001
        while True:
            pids = self.processes()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise EnvironmentLacking(
                    "processes-remain",
                    f"processes {sorted(pids)[:10]} of {self.path} cannot be killed",
                    hint="check /proc/PID/stack; they may be blocked on disk I/O",
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def remove(self) -> None:
        """Kill its processes and remove the group from every hierarchy."""
        self.kill()
        for root in self.hierarchies.roots():
            _remove(root / PARENT_CGROUP / self.name)

    def below(self, name: str) -> Cgroup:
        """Return a group inside this one."""
        return Cgroup(self.hierarchies, f"{self.name}/{name}", self.files)

    @property
    def tracker(self) -> tuple[str, Path] | None:
        """The hierarchy whose sub-groups only track processes, as controller and group folder.

        v1's freezer limits nothing. None where there are no control groups.
        """
        if not self.hierarchies.version:
            return None
        if self.hierarchies.unified is not None:
            return "", self.hierarchies.unified / PARENT_CGROUP / self.name
        root = self.hierarchies.controllers.get("freezer")
        if root is None:
            raise EnvironmentLacking(
                "no-freezer", "the freezer control group is not mounted", hint="mount it, or use cgroup v2"
            )
        return "freezer", root / PARENT_CGROUP / self.name


def list_cgroups(hierarchies: Hierarchies, prefix: str) -> tuple[str, ...]:
    """Names of our groups that begin with `prefix`, in any hierarchy."""
    names = {
        path.name
        for root in hierarchies.roots()
        if (root / PARENT_CGROUP).is_dir()
        for path in (root / PARENT_CGROUP).iterdir()
        if path.is_dir() and path.name.startswith(prefix)
    }
    return tuple(sorted(names))


def _pids(folder: Path) -> list[int]:
    """Processes in a group and below."""
    found: list[int] = []
    for path, _, _ in os.walk(folder):
        found += [int(line) for line in _text(Path(path, "cgroup.procs")).split()]
    return [pid for pid in found if pid > 0]


def _remove(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        # A group stays busy for a moment after its last process has ended.
        for pause in (0.001, 0.01, 0.05, 0.2, 1.0):
            try:
                Path(path).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(pause)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
