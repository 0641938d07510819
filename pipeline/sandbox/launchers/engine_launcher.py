"""Launch images by a container engine: load by digest, run under limits, watch, remove."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal, Protocol

from pipeline import process
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import Image
from pipeline.model.limits import Limits
from pipeline.model.smoke import Check, SmokePlan, Variant
from pipeline.sandbox import seccomp
from pipeline.sandbox.instance_launch import LOG_LIMIT
from pipeline.sandbox.launchers.client_command import CLIENT_OUTPUT_TIMEOUT, end_client
from pipeline.sandbox.launchers.container_engine import ContainerEngine, ContainerStart
from pipeline.sandbox.launchers.engine_cgroup import EngineCgroup, engine_cgroup
from pipeline.sandbox.launchers.engine_instance import EngineInstance
from pipeline.sandbox.launchers.launcher import KeptVolumes, Launcher, launcher_lacks
from pipeline.sandbox.output import Capture, RunningCommand, wait_for_exit
from pipeline.sandbox.removals import RemovalCommand, write_removals
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime import not_started
from pipeline.sandbox.sandbox_registry import SandboxRegistry, SandboxSlot

_LOAD_TIMEOUT = 600.0
"""Seconds to load an image: 400 MB take 20."""

_START_TIMEOUT = 60.0
"""Seconds for the engine to start a container; it takes less than one."""

_CLIENT_TIMEOUT = 30.0
_PAUSE = 0.05

_END_SEEN = 10.0
"""Seconds that an engine's client may take to end after its container."""

_NOT_STARTED = (125, 126, 127)
"""Exit statuses of `run` of an engine that could not start the container."""

ASKED_FROM_OUTSIDE = ("command", "http", "image", "log", "port", "stop")
"""Kinds of checks that need neither files, processes nor sockets of an instance looked at from the host."""


class ImageExport(Protocol):
    """Writes an image for an engine to load."""

    def __call__(self, image: Image, target: Path, form: Literal["layout", "archive"]) -> None:
        """Write `image` to `target`; an archive names it `target.name:latest`."""


@dataclass(slots=True)
class EngineVolumes:
    """Named volumes of instances that run one after the other: names by mount point.

    `folder` is the sandbox's in which their removal is recorded.
    """

    prefix: str
    folder: Path
    names: dict[str, str] = field(default_factory=dict)

    def named(self, paths: Sequence[str]) -> Mapping[str, str]:
        """Return the names of the volumes at these mount points."""
        for path in sorted(set(paths)):
            self.names.setdefault(path, f"{self.prefix}-{len(self.names)}")
        return self.names

    def close(self) -> None:
        """As `KeptVolumes` says: the engine holds nothing of them."""


@dataclass(slots=True)
class EngineLauncher(Launcher):
    """A launcher by a container engine.

    `sandboxes` are the folders in which what was made is recorded, so that it is removed, also by the reaper.
    """

    engine: ContainerEngine
    sandboxes: SandboxRegistry
    export: ImageExport
    _loaded: dict[str, str] = field(default_factory=dict)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return str(self.engine)

    @property
    def identified(self) -> bool:
        """As `Launcher` says."""
        return self.engine.identified

    def refuse(self, plan: SmokePlan) -> None:
        """As `Launcher` says."""
        require_launchable(self.engine, plan)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """As `Launcher` says: images that were loaded are removed at the end."""
        with contextlib.ExitStack() as closing:
            self._closing = closing
            try:
                yield
            finally:
                self._loaded.clear()

    @contextlib.contextmanager
    def volumes(self, name: str) -> Iterator[KeptVolumes]:
        """As `Launcher` says."""
        with self.sandboxes.slot(f"{name}-volumes") as slot:
            made = EngineVolumes(slot.name, slot.folder)
            yield made

    @contextlib.contextmanager
    def launch(
        self, image: Image, lowers: Sequence[Path], limits: Limits, *, name: str, user: str, volumes: KeptVolumes | None
    ) -> Iterator[EngineInstance]:
        """As `Launcher` says; the image is loaded with its first instance."""
        image_id = self._load(image)
        with contextlib.ExitStack() as closing:
            if volumes is None:
                volumes = closing.enter_context(self.volumes(name))
            assert isinstance(volumes, EngineVolumes)
            slot = closing.enter_context(self.sandboxes.slot(name))
            container = slot.name
            write_removals(slot.folder, RemovalCommand(self.engine.remove(container), self.engine.inspect(container)))
            filter_file = slot.folder / "seccomp.json"
            filter_file.write_text(json.dumps(seccomp.profile(build=False)))
            start = ContainerStart(
                container,
                hostname=name,
                image=image_id,
                limits=limits,
                seccomp=filter_file,
                user=user,
                volumes=self._named(volumes, image),
                ports=() if self.engine.visible else image.config.tcp_ports,
            )
            output = closing.enter_context(Capture(LOG_LIMIT, uid=0, gid=0, last=CLIENT_OUTPUT_TIMEOUT))
            running = process.start(
                self.engine.run(start), stdout=output.write_end, stderr=output.write_end, cwd=slot.folder
            )
            output.started()
            # Before the output is waited for, whatever fails from here on.
            closing.callback(end_client, running)
            instance = self._watch(start, slot, running, output, closing)
            instance.user = user or image.config.user
            closing.callback(instance.kill)
            yield instance

    def _named(self, volumes: EngineVolumes, image: Image) -> Mapping[str, str]:
        """Name the volumes of an image, and record their removal before they are made."""
        names = volumes.named(image.config.volumes)
        removals = [
            RemovalCommand(self.engine.remove_volume(one), self.engine.inspect_volume(one)) for one in names.values()
        ]
        write_removals(volumes.folder, *removals)
        return names

    # --- the image -----------------------------------------------------------------------------

    def _load(self, image: Image) -> str:
        """Load an image once, and return the ID under which the engine has it.

        It is the digest of its configuration. Raises VerificationError `launcher-image` if the engine has another image
        than the one that is tested, EnvironmentLacking `launcher-failed` if it cannot load it.
        """
        with self._lock:
            known = self._loaded.get(str(image.digest))
            if known is not None:
                return known
            slot = self._closing.enter_context(self.sandboxes.slot("image"))
            name = self.engine.loaded_name(slot.name)
            write_removals(slot.folder, RemovalCommand(self.engine.remove_image(name), self.engine.inspect_image(name)))
            target = slot.folder / slot.name
            self.export(image, target, self.engine.form)
            try:
                process.run(self.engine.load(target), cwd=target.parent, timeout=_LOAD_TIMEOUT)
                told = process.run(self.engine.inspect_image(name), timeout=_CLIENT_TIMEOUT).stdout.decode().split()
            except process.CommandFailed as error:
                raise EnvironmentLacking(
                    "launcher-failed",
                    f"{self.engine.name} cannot load the image: {error}",
                    hint="the cause is the engine or its storage: try another image with it",
                ) from error
            require_same_image([image.config_descriptor.digest.hex, image.digest.hex], told, self.engine)
            self._loaded[str(image.digest)] = told[0]
            return told[0]

    # --- the container -------------------------------------------------------------------------

    def _watch(
        self,
        start: ContainerStart,
        slot: SandboxSlot,
        running: RunningCommand,
        output: Capture,
        closing: contextlib.ExitStack,
    ) -> EngineInstance:
        pid, container_id = self._wait_until_started(start, running, output)
        group = EngineCgroup(self.sandboxes.hierarchies, start.name)
        empty = slot.folder / "none"
        empty.mkdir()
        root, network = os.open(empty, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), -1
        if not self.engine.visible:
            pid = -1
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if pid > 0:
                folder = Path("/proc", str(pid))
                require_process_of(container_id, folder, running, self.engine)
                group = engine_cgroup(start.name, (folder / "cgroup").read_text(), self.sandboxes.hierarchies)
                network = os.open(folder / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
                seen = os.open(folder / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                os.close(root)
                root = seen
        closing.callback(os.close, root)
        if network >= 0:
            closing.callback(os.close, network)
        return EngineInstance(
            start.hostname,
            start.name,
            self.engine,
            start.limits,
            RootFs(root, 0),
            pid,
            group,
            network,
            self._published(start),
            tuple(start.volumes),
            running,
            output,
            slot.folder,
        )

    def _wait_until_started(self, start: ContainerStart, running: RunningCommand, output: Capture) -> tuple[int, str]:
        """Wait for the container's first process; return its PID and the container's ID.

        The PID is -1 if it has ended.

        Raises SmokeError `not-started`, VerificationError `launcher-image` if it is of another image.
        """
        deadline, ended = time.monotonic() + _START_TIMEOUT, False
        while True:
            told = process.run(self.engine.inspect(start.name), timeout=_CLIENT_TIMEOUT, check=False)
            words = told.stdout.decode().split()
            if told.status == 0 and len(words) == 3 and words[0].isdigit():
                require_same_image([start.image.removeprefix("sha256:")], words[1:2], self.engine)
                if int(words[0]) > 0:
                    return int(words[0]), words[2]
            if ended or time.monotonic() >= deadline:
                break
            # Also of one that has ended, the image is asked for.
            ended = wait_for_exit(running, _PAUSE)
        if ended and running.returncode not in _NOT_STARTED:
            return -1, ""
        output.catch_up(_PAUSE)
        said = output.kept.decode(errors="replace").strip()[-2000:] or "no reason given"
        raise not_started(said)

    def _published(self, start: ContainerStart) -> Mapping[int, int]:
        """Return where the ports are published; none of a container that has ended."""
        found = {}
        for port in start.ports:
            told = process.run(self.engine.published(start.name, port), timeout=_CLIENT_TIMEOUT, check=False)
            number = told.stdout.decode(errors="replace").partition("\n")[0].rpartition(":")[2].strip()
            if number.isdigit():
                found[port] = int(number)
        return found


def require_process_of(container: str, folder: Path, running: RunningCommand, engine: ContainerEngine) -> None:
    """Require that the process with this folder in /proc is of the container with this ID.

    An engine on another machine, or outside of the container that relbuild runs in, tells numbers that are other
    processes' here. The ID is in the name of the control group, or of the files that an engine mounts (/etc/hosts).

    Raises EnvironmentLacking `launcher-elsewhere`, ProcessLookupError if the container has ended.
    """
    with contextlib.suppress(OSError):
        if any(container in (folder / name).read_text(errors="replace") for name in ("cgroup", "mountinfo")):
            return
    if wait_for_exit(running, _END_SEEN):
        raise ProcessLookupError
    raise EnvironmentLacking(
        "launcher-elsewhere",
        f"{engine.name} runs its containers where their processes cannot be seen from here",
        hint="use an engine of this machine; in a container, without another's socket",
    )


def require_launchable(engine: ContainerEngine, plan: SmokePlan) -> None:
    """Refuse a plan of which an engine cannot do something, before anything is launched.

    Raises UsageError `launcher-lacks`.
    """
    if plan.neighbours is not None:
        raise launcher_lacks(engine.name, "'smoke.neighbours'")
    # Engines mount file systems of their own (/sys/fs/cgroup) that are not read-only.
    for variant in plan.variants:
        if variant is Variant.READ_ONLY or not engine.visible:
            raise launcher_lacks(engine.name, f"'smoke.variants' {variant}")
    if engine.visible:
        return
    for check in (*((plan.ready,) if plan.ready else ()), *plan.checks):
        if not asked_from_outside(check):
            raise launcher_lacks(engine.name, f"the check '{check.name}' ({check.kind})")


def asked_from_outside(check: Check) -> bool:
    """Return whether a check needs nothing of an instance looked at from the host."""
    if str(check.kind) not in ASKED_FROM_OUTSIDE:
        return False
    asked = check.subject
    return not (isinstance(asked, HttpRequest) and (asked.socket or asked.trust))


def require_same_image(wanted: Sequence[str], told: Sequence[str], engine: ContainerEngine) -> None:
    """Require that the digests that an engine told are those of the image."""
    for digest, said in zip(wanted, told, strict=False):
        if said.removeprefix("sha256:") != digest:
            raise VerificationError(
                "launcher-image",
                f"{engine.name} has another image: sha256:{digest} was loaded, it has {said}",
                hint="choose another launcher (Docker's containerd image store has digests of its own)",
            )
    if not told:
        raise VerificationError(
            "launcher-image",
            f"{engine.name} does not tell which image it has",
            hint="check that the program is what its name says, or choose another launcher",
        )
