"""Build and write the config.json that an OCI runtime is given (runtime-spec 1.0.2).

See config.md and config-linux.md. The two profiles, for building and for running, differ in capabilities, system calls
and in whether the root can be written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits.tmpfs import inodes_of
from pipeline.sandbox import seccomp
from pipeline.sandbox.idmap import id_map

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BUILD_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""Capabilities of root in the build profile, over the container's own IDs only (user_namespaces(7))."""

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/mtrr",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
)
"""Files about the host or its kernel that containers need not read: more than the usual list."""

_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")
_DEVICES = 64 << 20
"""Size of the tmpfs at /dev in bytes, where the container's root can make files."""
_NO_DEVICES: Mapping[str, object] = {"devices": [{"allow": False, "access": "rwm"}]}


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of a path in the private mount namespace at `target`."""

    source: Path
    target: str
    read_only: bool = False
    executable: bool = True


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The process of a container: arguments, environment, directory, user and rlimits.

    `uid`, `gid` and `groups` are the image's numbers; `rlimits` are resource limits by kind (getrlimit(2)).
    """

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    directory: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    rlimits: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """The container around a process: root, ids, control group, mounts, limits and namespaces.

    `base` is the first id on the host, `shm` bytes of /dev/shm; `resources` are its limits, as members of
    `linux.resources`; `namespaces`: those to join, by kind; the runtime makes the others.
    """

    process: ProcessPlan
    root: Path
    base: int
    cgroup: str
    build: bool
    hostname: str
    shm: int
    mounts: Sequence[Mount] = ()
    resources: Mapping[str, object] = field(default_factory=dict)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, Path] = field(default_factory=dict)


def merge_environment(environment: Sequence[str], changes: Mapping[str, str]) -> tuple[str, ...]:
    """Return `NAME=value` lines with the values of `changes` replaced or added."""
    values = {name: value for name, _, value in (line.partition("=") for line in environment)}
    return tuple(f"{name}={value}" for name, value in {**values, **changes}.items())


def process_spec(plan: ProcessPlan, *, terminal: bool = False) -> dict[str, object]:
    """Return the `process` object of a config.json.

    `terminal`: it gets one of the container's own.
    """
    limits = (*plan.rlimits, ("RLIMIT_CORE", 0))
    names = list(plan.capabilities)
    return {
        "terminal": terminal,
        "user": {"uid": plan.uid, "gid": plan.gid, "additionalGids": list(plan.groups), "umask": 0o022},
        "args": list(plan.argv),
        "env": list(plan.environment),
        "cwd": plan.directory,
        "capabilities": {
            "bounding": names,
            "effective": names,
            "permitted": names,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{"type": kind, "hard": value, "soft": value} for kind, value in limits],
        "noNewPrivileges": True,
    }


def spec(plan: ContainerPlan) -> dict[str, object]:
    """Return the whole config.json as JSON values."""
    ids = [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in id_map(plan.base)]
    return {
        "ociVersion": "1.0.2",
        "process": process_spec(plan.process),
        "root": {"path": str(plan.root), "readonly": not plan.build},
        "hostname": plan.hostname,
        "mounts": [*_system_mounts(plan.shm), *(_bind(mount) for mount in plan.mounts)],
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [
                {"type": kind, **({"path": _joined(plan.namespaces[kind])} if kind in plan.namespaces else {})}
                for kind in ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            # Without control groups the config must not have limits.
            **({"cgroupsPath": plan.cgroup, "resources": {**_NO_DEVICES, **plan.resources}} if plan.cgroup else {}),
            "sysctl": dict(plan.sysctl),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "seccomp": seccomp.profile(build=plan.build),
        },
    }


def _joined(namespace: Path) -> str:
    """Return a namespace's path, so that runc takes PID of /proc/PID/fd/N for no process in it.

    runc 1.2 to 1.5 looks for /proc/PID/ns/user with Go's Sscanf, which stops at the first difference and calls the
    number a match (GetUserNamespaceMappings in userns_maps_linux.go). It then compares the mappings with those of PID.
    """
    return str(namespace).replace("/proc/", "/proc/./", 1)


def write_bundle(folder: Path, plan: ContainerPlan) -> None:
    """Write config.json into `folder`."""
    (folder / "config.json").write_text(json.dumps(spec(plan)))


def _system_mounts(shm: int) -> list[dict[str, object]]:
    # No /sys: a network namespace that was made beforehand belongs to another user namespace, and then the
    # kernel refuses to mount it.
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", *_sizes(_DEVICES)],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",  # noqa: S108 - in the container
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", *_sizes(shm)],
        },
    ]


def _sizes(size: int) -> tuple[str, str]:
    """Options of a tmpfs of `size` bytes: its files are counted too."""
    return f"size={size}", f"nr_inodes={inodes_of(size)}"


def _bind(mount: Mount) -> dict[str, object]:
    options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if mount.read_only else "rw"]
    if not mount.executable:
        options.append("noexec")
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": options}
