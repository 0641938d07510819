"""A container engine's command lines, with limits, mounts, network and user as options.

`ContainerEngine` has what Podman and Docker have in common (podman-run(1), docs.docker.com/reference/cli/docker);
a kind is a class that derives from it.
"""

from __future__ import annotations

import resource
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import AsRlimit, InResources
from pipeline.model.limits import Limits
from pipeline.model.limits.bandwidth import LIMIT as BANDWIDTH
from pipeline.model.limits.cpus import LIMIT as CPUS
from pipeline.model.limits.io_bandwidth import LIMIT as IO_BANDWIDTH
from pipeline.model.limits.io_weight import LIMIT as IO_WEIGHT
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.open_files import LIMIT as OPEN_FILES
from pipeline.model.limits.pids import LIMIT as PIDS
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.volume import LIMIT as VOLUME
from pipeline.sandbox.launchers.launcher_options import shown_options

SCRATCH = ("/tmp", "/run")  # noqa: S108 - in the container
"""Scratch file systems, as relbuild's own sandbox has them."""

_PROCESSES = 4096
"""RLIMIT_NPROC: an engine's own default is more than one that runs in a container may give."""

UNENFORCED: Mapping[str, str] = {
    BANDWIDTH.name: "the launcher does not limit network bandwidth",
    IO_BANDWIDTH.name: "the launcher does not limit the throughput of volumes",
    IO_WEIGHT.name: "the launcher sets no share of the disk",
    VOLUME.name: "the launcher does not limit the size of volumes",
}
"""Limits that engines do not enforce, and why."""

ENFORCED = (CPUS.name, MEMORY.name, PIDS.name, OPEN_FILES.name, TMPFS.name)
"""Limits for which `limit_options` has options."""


@dataclass(frozen=True, slots=True)
class ContainerStart:
    """The values that a container is started with.

    `image` is the ID under which the engine has it, `user` "" for the image's, `volumes` are names by mount point,
    `ports` those to publish on this machine's loopback (for an engine whose network cannot be entered), `seccomp` is a
    file with the filter.
    """

    name: str
    hostname: str
    image: str
    limits: Limits
    seccomp: Path
    user: str = ""
    volumes: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ContainerEngine(ABC):
    """An engine by its command line and its version.

    The command line may have global options: `("podman", "--cgroup-manager", "cgroupfs")`. `runtime` is its OCI
    runtime with these options, "" if it has not told.
    """

    command: tuple[str, ...]
    version: str = ""
    runtime: str = ""

    name: ClassVar[str]
    proved: ClassVar[bool] = False
    """True if tests launch images with it; of the others, they hold the command lines alone."""
    visible: ClassVar[bool] = True
    """True if its containers' processes are this kernel's, so that checks can look at them from the host."""
    form: ClassVar[Literal["layout", "archive"]]
    """The form that `load` reads: an OCI layout, or a Docker archive."""
    more_options: ClassVar[tuple[str, ...]] = ()
    """Options of `run` that only this kind has."""
    not_isolated: ClassVar[str] = "the image's user IDs are the machine's: there is no user namespace"
    """The part that its containers lack of the isolation that relbuild's own sandbox has; "": nothing that is known."""

    def __str__(self) -> str:
        runtime = f" ({self.runtime})" if self.runtime else ""
        return " ".join((f"{self.name} {self.version}{runtime}", *filter(None, [shown_options(self.command[1:])])))

    @property
    def identified(self) -> bool:
        """True if `str()` says which runtime its containers have."""
        return bool(self.runtime or not self.runtime_question())

    @abstractmethod
    def runtime_question(self) -> list[str]:
        """Return the command that prints its OCI runtime; [] if that is settled by the kind."""

    @abstractmethod
    def load(self, path: Path) -> list[str]:
        """Return the command that loads an image from a layout or archive, executed in its folder."""

    def run(self, start: ContainerStart) -> list[str]:
        """Return the command that runs a container, with its output and exit status."""
        network = ["--network", "none"]
        if start.ports:
            network = [word for port in start.ports for word in ("--publish", f"127.0.0.1::{port}")]
        mounts = [_volume_mount(name, path) for path, name in sorted(start.volumes.items())]
        return [
            *(*self.command, "run", "--pull", "never", "--name", start.name, "--hostname", start.hostname),
            # relbuild reads the output, with a bound; an engine's log of its own has none.
            *("--log-driver", "none"),
            *(*network, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--security-opt", f"seccomp={start.seccomp}", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
            *self.more_options,
            *limit_options(start.limits),
            *(word for mount in mounts for word in ("--mount", mount)),
            *(("--user", start.user) if start.user else ()),
            start.image,
        ]

    def execute(self, container: str, argv: Sequence[str], user: str, environment: Mapping[str, str]) -> list[str]:
        """Return the command that executes a program in a container, with this process's stdin."""
        given = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        whose = ("--user", user) if user else ()
        return [*self.command, "exec", "--interactive", *whose, *given, container, *argv]

    def signal(self, container: str, number: int) -> list[str]:
        """Return the command that sends a signal to a container's first process."""
        return [*self.command, "kill", "--signal", str(number), container]

    def remove(self, container: str) -> list[str]:
        """Return the command that kills and removes a container."""
        return [*self.command, "rm", "--force", "--volumes", container]

    def remove_volume(self, name: str) -> list[str]:
        """Return the command that removes a volume."""
        return [*self.command, "volume", "rm", "--force", name]

    def inspect_volume(self, name: str) -> list[str]:
        """Return the command that succeeds if a volume exists."""
        return [*self.command, "volume", "inspect", name]

    def remove_image(self, image: str) -> list[str]:
        """Return the command that removes a name of an image, and the image with its last name."""
        return [*self.command, "rmi", image]

    def inspect(self, container: str) -> list[str]:
        """Return the command that prints PID, image ID and ID of a container, with spaces between."""
        told = "{{.State.Pid}} {{.Image}} {{.Id}}"
        return [*self.command, "inspect", "--type", "container", "--format", told, container]

    @abstractmethod
    def loaded_name(self, name: str) -> str:
        """Return the name that an image has once it was loaded from a file or folder `name`."""

    def inspect_image(self, image: str) -> list[str]:
        """Return the command that prints the ID of an image (its configuration's digest).

        After a space, the digest of its manifest, where the engine keeps that.
        """
        return [*self.command, "image", "inspect", "--format", "{{.Id}}", image]

    def published(self, container: str, port: int) -> list[str]:
        """Return the command that prints where a port is published, as ADDRESS:PORT."""
        return [*self.command, "port", container, f"{port}/tcp"]


def _volume_mount(name: str, path: str) -> str:
    """Return the value of `--mount`.

    Its fields are written as in CSV, which engines read, so that a comma in an image's path begins no other one.
    """
    destination = f"destination={path}"
    if any(character in path for character in ',"\r\n'):
        destination = '"' + destination.replace('"', '""') + '"'
    return f"type=volume,source={name},{destination}"


def limit_options(limits: Limits) -> list[str]:
    """Return the options of `run` for the limits that engines enforce."""
    cpus, memory, pids = limits[CPUS], limits[MEMORY], limits[PIDS]
    options = []
    if cpus is not None:
        options += ["--cpus", f"{cpus / 1000:g}"]
    if memory is not None:
        options += ["--memory", f"{memory}b", "--memory-swap", f"{memory}b"]
    assert isinstance(PIDS.set_by, InResources) and isinstance(OPEN_FILES.set_by, AsRlimit)
    options += ["--pids-limit", str(PIDS.set_by.unasked if pids is None else pids)]
    files = limits[OPEN_FILES] or OPEN_FILES.set_by.unasked or 0
    for name, wanted, kind in (
        ("nofile", files, resource.RLIMIT_NOFILE),
        ("nproc", _PROCESSES, resource.RLIMIT_NPROC),
    ):
        _, hard = resource.getrlimit(kind)
        number = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        options += ["--ulimit", f"{name}={number}:{number}"]
    options += ["--ulimit", "core=0:0", "--shm-size", f"{limits[TMPFS]}b"]
    for path in SCRATCH:
        options += ["--tmpfs", f"{path}:rw,size={limits[TMPFS]},mode=1777"]
    return options
