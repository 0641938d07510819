"""Launch of an image as a container: mounts, network link, limits and user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import process
from pipeline.errors import SmokeError
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.model.limits.bandwidth import LIMIT as BANDWIDTH
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.volume import LIMIT as VOLUME
from pipeline.model.quantities import write_size
from pipeline.sandbox.container_user import Identity
from pipeline.sandbox.emulation import find_emulator
from pipeline.sandbox.entry_program import require_entry_program
from pipeline.sandbox.idmap import user_and_network_namespace
from pipeline.sandbox.instance import (
    Instance,
    resolve_identity,
)
from pipeline.sandbox.instance_network import InstanceNetwork, Link, create_link
from pipeline.sandbox.kill import kill_and_wait
from pipeline.sandbox.limit_readings import (
    StartedInstance,
    resources_of,
    rlimits_of,
    set_limits,
)
from pipeline.sandbox.mount_namespace import open_mount_namespace
from pipeline.sandbox.mounts import SYSTEM_FOLDERS, BindMount, InstanceMounts
from pipeline.sandbox.output import Capture, HeldOutput
from pipeline.sandbox.overlay import mount_overlay
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime import last_message, wait_until_started
from pipeline.sandbox.runtime_bundle import (
    DEFAULT_PATH,
    ContainerPlan,
    ProcessPlan,
    merge_environment,
    write_bundle,
)
from pipeline.sandbox.sandbox_registry import SandboxRegistry, SandboxSlot
from pipeline.sandbox.volumes import Volumes

LOG_LIMIT = 8 << 20
"""Bytes kept of an instance's output."""

_LEAST_MEMORY = 8 << 20
"""Bytes with which any runtime starts a container: runc needs 2.5 MiB until it executes the image's program."""

_START_TIMEOUT = 30.0
"""Seconds for the runtime to start a container; it takes 0.03."""


@contextlib.contextmanager
def launch(
    config: ImageConfig,
    lowers: Sequence[Path],
    limits: Limits,
    *,
    sandboxes: SandboxRegistry,
    name: str,
    volumes: Volumes | None = None,
    network: InstanceNetwork | None = None,
    environment: Mapping[str, str] | None = None,
    bindings: Sequence[BindMount] = (),
    follow: Callable[[bytes], None] | None = None,
) -> Iterator[Instance]:
    """Start an image from its unpacked layers (lowest first) as its config says.

    It is killed when the block ends.

    The root is read-only. Volumes are writable, each of `limits.volume` bytes; one that is not in `volumes` yet is
    filled with the image's content there. /tmp and /run are scratch file systems of `limits.tmpfs` bytes, /run with
    the image's content, owner and mode. `network`: the outer namespace to connect to, which instances may share;
    without, it has one of its own. `environment` overrides the image's, `bindings` its files. `follow` gets the
    output, piece by piece, in another thread.
    Raises SmokeError when the image cannot be started, `program-foreign` if its program is for another architecture
    than the image; EnvironmentLacking when the host lacks something, `architecture-foreign` if it can run no programs
    of the image's architecture.
    """
    find_emulator(config.architecture)
    argv = (*config.entrypoint, *config.command)
    if not argv:
        raise SmokeError(
            "nothing-to-run",
            "the image has neither entrypoint nor command",
            hint="set 'image.entrypoint' in the recipe",
        )
    with (
        sandboxes.slot(name) as slot,
        user_and_network_namespace(slot.base) as (userns, netns),
        contextlib.ExitStack() as closing,
        open_mount_namespace() as mntns,
        contextlib.ExitStack() as opened,
    ):
        link, no_link_reason = _link(netns, slot, limits, network, closing)
        overlay = mount_overlay(
            mntns,
            lowers,
            folder=slot.folder,
            userns=userns,
            base=slot.base,
            mount_points=(*SYSTEM_FOLDERS, "/etc"),
        )
        opened.callback(os.close, overlay.handle)
        if volumes is None:
            volumes = Volumes(slot.folder)
            closing.callback(volumes.close)
        instance_mounts = InstanceMounts(mntns, slot, overlay, RootFs(overlay.handle, slot.base), userns, opened)
        identity = resolve_identity(instance_mounts.files, config.user)
        bound = instance_mounts.bindings(bindings)
        mounts = [
            *instance_mounts.scratch(limits[TMPFS]),
            *instance_mounts.provided(name, link.address if link is not None else None),
            *instance_mounts.volumes(config.volumes, volumes, limits[VOLUME]),
            *bound,
        ]
        directory = config.working_directory or "/"
        instance_mounts.files.require_working_directory(directory)
        instance_mounts.ensure_directory(directory)
        plan = ProcessPlan(
            argv,
            merge_environment(_environment(config, identity, name), environment or {}),
            directory,
            identity.uid,
            identity.gid,
            identity.groups,
            rlimits=rlimits_of(limits),
        )
        require_entry_program(instance_mounts.files, plan, config.architecture)
        write_bundle(
            slot.folder,
            ContainerPlan(
                process=plan,
                root=overlay.path,
                base=slot.base,
                cgroup=slot.group.path,
                build=False,
                hostname=name,
                shm=limits[TMPFS],
                mounts=mounts,
                resources=resources_of(limits, slot.group),
                # Lets servers bind ports below 1024 without a capability; the namespace is the instance's own.
                sysctl={"net.ipv4.ip_unprivileged_port_start": "0"},
                namespaces={
                    kind: Path(f"/proc/{os.getpid()}/fd/{handle}")
                    for kind, handle in (("user", userns), ("network", netns))
                    if link is not None
                },
            ),
        )
        instance = _start(sandboxes, instance_mounts, plan=plan, limits=limits, name=name, link=link, follow=follow)
        instance.no_link_reason, instance.architecture = no_link_reason, config.architecture
        # Reads the final usage before link and mounts are closed.
        opened.callback(instance.settle)
        yield instance


def _link(
    inside: int, slot: SandboxSlot, limits: Limits, network: InstanceNetwork | None, closing: contextlib.ExitStack
) -> tuple[Link | None, str]:
    """Create the instance's network link, or return None and the reason.

    Without a link the runtime makes an empty network namespace.
    """
    try:
        return closing.enter_context(create_link(inside, slot.range, limits[BANDWIDTH], network)), ""
    except OSError as error:
        return None, f"cannot create its network: {error}"


def _start(
    sandboxes: SandboxRegistry,
    instance_mounts: InstanceMounts,
    *,
    plan: ProcessPlan,
    limits: Limits,
    name: str,
    link: Link | None,
    follow: Callable[[bytes], None] | None,
) -> Instance:
    slot, closing = instance_mounts.slot, instance_mounts.closing
    pid_file, log = slot.folder / "pid", slot.folder / "runtime.log"
    uid, gid = slot.base + plan.uid, slot.base + plan.gid
    held = None if follow is None else HeldOutput(follow)
    output = closing.enter_context(Capture(LOG_LIMIT, uid=uid, gid=gid, follow=held))
    command: list[str | Path] = [*sandboxes.runtime.command, "--root", slot.folder / "runtime"]
    command += ["--log", log, "--log-format", "json", "run", "--bundle", slot.folder, "--pid-file", pid_file]
    command += [*(["--keep"] if sandboxes.runtime.keeps_ended else []), slot.name]
    running = instance_mounts.mntns.call(process.start, command, stdout=output.write_end, stderr=output.write_end)
    output.started()

    closing.callback(kill_and_wait, running, slot.group)
    with _told_of_memory(limits):
        pid = wait_until_started(
            running,
            pid_file,
            lambda: last_message(log) or output.kept.decode(errors="replace").strip()[-2000:] or "no reason given",
            within=_START_TIMEOUT,
        )
    if held is not None:
        held.release()
    set_limits(limits, StartedInstance(slot.group, slot.folder, instance_mounts.file_systems.devices()))
    pidfd, namespace = _handles(pid, instance_mounts)
    return Instance(
        name,
        sandboxes,
        slot,
        instance_mounts.files,
        plan,
        limits,
        instance_mounts.file_systems,
        link,
        pid if pidfd >= 0 else -1,
        _mntns=instance_mounts.mntns,
        _running=running,
        _output=output,
        _pidfd=pidfd,
        _network=namespace,
        _last_usage=slot.group.usage(),
    )


@contextlib.contextmanager
def _told_of_memory(limits: Limits) -> Iterator[None]:
    """Name the memory limit where it is the reason why a container does not start."""
    try:
        yield
    except SmokeError as error:
        memory = limits[MEMORY]
        if memory is None or memory >= _LEAST_MEMORY:
            raise
        raise SmokeError(
            error.code,
            f"the container could not be started: its memory limit ({write_size(memory)}) is too small",
            hint=f"give it at least {_LEAST_MEMORY >> 20}MiB (--memory, or 'limits.memory' in the recipe)",
        ) from error


def _handles(pid: int, instance_mounts: InstanceMounts) -> tuple[int, int]:
    """Open descriptors of the main process and of its network namespace; -1 if it has ended.

    Also registers the file systems that the runtime has made for it.
    """
    closing = instance_mounts.closing
    try:
        pidfd = os.pidfd_open(pid)
        closing.callback(os.close, pidfd)
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        closing.callback(os.close, network)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        closing.callback(os.close, root)
    except (ProcessLookupError, FileNotFoundError):
        return -1, -1
    # If it had ended, its PID might be another process's by now, which must get no signals.
    if pid not in instance_mounts.slot.group.processes():
        return -1, -1
    instance_mounts.know(root, "/dev")
    return pidfd, network


def _environment(config: ImageConfig, identity: Identity, hostname: str) -> tuple[str, ...]:
    """Return the image's environment with PATH, HOSTNAME and HOME where it lacks them."""
    said = {line.partition("=")[0] for line in config.environment}
    given = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, "HOME": identity.home}
    return (*config.environment, *(f"{key}={value}" for key, value in given.items() if key not in said))
