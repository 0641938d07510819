"""Container engines as launchers call them, and a container that they are to start."""

from __future__ import annotations

from pathlib import Path

from pipeline.model.limits import Limits
from pipeline.sandbox.launchers.container_engine import ContainerStart
from pipeline.sandbox.launchers.docker import Docker
from pipeline.sandbox.launchers.podman import Podman
from pipeline.sandbox.launchers.runsc import Runsc

PODMAN = Podman(("podman", "--cgroup-manager", "cgroupfs"), "4.3.1")
DOCKER = Docker(("docker",), "27.1")
RUNSC = Runsc(("docker",), "27.1")
IMAGE = "sha256:" + "a" * 64
LIMITED = Limits(milli_cpus=500, memory=64 << 20, pids=50, open_files=100, tmpfs=1 << 20, bandwidth=1000)


def start(limits: Limits = LIMITED, **more: object) -> ContainerStart:
    values = {"hostname": "redis-1", "image": IMAGE, "limits": limits, "seccomp": Path("/s/seccomp.json"), **more}
    return ContainerStart("mark-redis-1-ab", **values)  # type: ignore[arg-type]
