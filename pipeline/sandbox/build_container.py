"""Run commands in containers on an overlay over the layers of an image being built.

Every command gets a new container on the same overlay, or one that earlier commands left as it was, so that no process
that it started outlives it. /run and /tmp are scratch file systems of the session: files that scriptlets create there
are seen by later commands and do not come into the image.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline import process
from pipeline.errors import BuildError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits import Limits
from pipeline.sandbox.cgroup_migration import wait_for_migration
from pipeline.sandbox.command_container import CommandContainer, CommandResult
from pipeline.sandbox.command_shell import CommandShell
from pipeline.sandbox.disk_quota import DiskQuota, open_disk_quota
from pipeline.sandbox.emulation import native_architectures
from pipeline.sandbox.entry_program import require_entry_program
from pipeline.sandbox.idmap import user_namespace
from pipeline.sandbox.limit_readings import resources_of
from pipeline.sandbox.mount_namespace import MountNamespace, open_mount_namespace
from pipeline.sandbox.output import Capture, wait_for_exit
from pipeline.sandbox.overlay import Overlay, mount_overlay, mount_without_path
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime_bundle import (
    BUILD_CAPABILITIES,
    DEFAULT_PATH,
    ContainerPlan,
    Mount,
    ProcessPlan,
    write_bundle,
)
from pipeline.sandbox.sandbox_registry import SandboxRegistry, SandboxSlot

_SCRATCH = ("run", "tmp")


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """The limits of a build session.

    Of each command: `memory` bytes (swap included), `pids`, `output` bytes kept of stdout and of stderr, `open_files`.
    Of the session: `scratch` bytes of each scratch file system, `disk` bytes of the upper directory.
    """

    memory: int = 2 << 30
    pids: int = 512
    output: int = 1 << 20
    scratch: int = 256 << 20
    disk: int = 8 << 30
    open_files: int = 4096


@dataclass(slots=True)
class BuildSession:
    """A session of commands on an overlay over an image's layers, made by `build_session`.

    `upper` is the directory where changes land, a path for this process: its file system ends with the session and
    cannot be mounted elsewhere; its owners are the image's IDs plus `shift`. `root` is the merged tree, for this
    process and commands that it starts. `files` reads and writes in it without following links out of it.
    """

    sandboxes: SandboxRegistry
    slot: SandboxSlot
    limits: BuildLimits
    files: RootFs
    _mntns: MountNamespace
    _overlay: Overlay
    _quota: DiskQuota
    _userns: int
    _mounts: list[Mount]
    _closing: contextlib.ExitStack
    architecture: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _shell: CommandShell | None = None

    @property
    def root(self) -> Path:
        """The merged tree. Absolute symlinks in it lead to the host's files: prefer `files`."""
        return Path(f"/proc/{os.getpid()}/fd/{self._overlay.handle}")

    @property
    def upper(self) -> Path:
        """The overlay's upper directory, which holds the changes."""
        return self._overlay.upper

    @property
    def shift(self) -> int:
        """The host's ID minus the image's."""
        return self.slot.base

    def bind(self, source: Path, target: str) -> None:
        """Mount a directory of the host read-only at `target` in all later commands.

        It must not change any more. Owners appear as they are on the host (root is root). `target` lies below /run or
        /tmp, so that its mount point does not come into the image.
        """
        number = next(self._numbers)
        seen = self._mntns.bind(source, f"bound{number}", read_only=True, userns=self._userns)
        self._show(mount_without_path(self._mntns, seen.name, f"unnamed{number}"), target)

    def share(self, target: str) -> Path:
        """Make a folder that this process writes to and all later commands read at `target`.

        It has `limits.scratch` bytes and ends with the session; `target` is as with `bind`.
        """
        name = f"shared{next(self._numbers)}"
        seen = self._mntns.tmpfs(name, size=self.limits.scratch, mode=0o755, uid=0, gid=0)
        handle = self._mntns.call(os.open, seen, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._closing.callback(os.close, handle)
        self._show(seen, target)
        return Path(f"/proc/{os.getpid()}/fd/{handle}")

    def _show(self, seen: Path, target: str) -> None:
        place = PurePosixPath(target)
        if len(place.parts) < 3 or place.parts[1] not in _SCRATCH or ".." in place.parts:
            raise UsageError("bind-elsewhere", f"the target '{target}' of the bind mount is not below /run or /tmp")
        point = self._mounts[_SCRATCH.index(place.parts[1])].source.joinpath(*place.parts[2:])
        self._mntns.call(lambda: point.mkdir(parents=True, exist_ok=True))
        self._mounts.append(Mount(seen, target, read_only=True))
        if self._shell is not None:  # Its container has not got the mount; the next one has.
            self._shell.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
        timeout: float = 300.0,
    ) -> CommandResult:
        """Run a command as the image's root, without a network, and wait for its end.

        All processes that it started are killed at its end.

        When `timeout` (seconds) passes, it is killed with them. `environment` is added to PATH, HOME and
        LANG=C.UTF-8. Raises BuildError `command-not-started` if the runtime could not start it (a missing
        program, for one), SmokeError `program-foreign` if its program is for another architecture than the session's.
        """
        self.files.require_working_directory(directory)
        variables = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8", **(environment or {})}
        plan = self.process_plan(tuple(argv), variables, directory)
        if self.architecture:
            require_entry_program(self.files, plan, self.architecture)
        ended = None if self._shell is None else self._shell.run(plan, stdin, timeout)
        return self._run_alone(plan, stdin, timeout) if ended is None else ended

    def process_plan(self, argv: tuple[str, ...], variables: Mapping[str, str], directory: str = "/") -> ProcessPlan:
        """Return the process of a command with these variables, and the session's rights and limits."""
        return ProcessPlan(
            argv,
            tuple(f"{name}={value}" for name, value in variables.items()),
            directory,
            capabilities=BUILD_CAPABILITIES,
            rlimits=(("RLIMIT_NOFILE", self.limits.open_files), ("RLIMIT_FSIZE", self.limits.disk)),
        )

    def begin_commands(self, folder: Path, target: str) -> None:
        """Run commands one after the other in one container, where that is the same for them.

        `folder` is what `share` returned for `target`. The container is started at once, and its start not waited for:
        `bind` and `share` had better come before. See `pipeline.sandbox.command_shell`.
        """
        started = self.sandboxes.runtime.shares_kernel and bool(self.slot.group.version) and not self.emulated
        if started and self._shell is None:
            self._shell = CommandShell(self, folder, target)
            self._closing.callback(self._shell.close)
            self._shell.start()

    def end_commands(self) -> None:
        """Let the container of `begin_commands` end; what is run later gets a container of its own."""
        if self._shell is not None:
            self._shell.finish()
            self._shell = None

    @property
    def bound(self) -> tuple[str, ...]:
        """Targets of `bind` and `share`: programs there are relbuild's, and not in `files`."""
        return tuple(mount.target for mount in self._mounts if mount.read_only)

    @property
    def emulated(self) -> bool:
        """True if the image's programs are run by an emulator."""
        return self.architecture not in ("", *native_architectures())

    def full(self) -> bool:
        """Return whether next to no space is left for changes."""
        return self._quota.full()

    @property
    def pause(self) -> float:
        """Seconds until `full` is to be asked again."""
        return self._quota.pause

    def start(
        self, plan: ProcessPlan, *, stdin: IO[bytes] | int, stdout: int, stderr: int, pids: int
    ) -> CommandContainer:
        """Start a container of at most `pids` processes on the tree, without waiting for it."""
        for point in ("/proc", "/dev", *(f"/{name}" for name in _SCRATCH)):
            self.files.require_mount_point(point)
        number = f"c{next(self._numbers)}"
        group = self.slot.group.below(number)
        name, bundle = f"{self.slot.name}-{number}", self.slot.folder / number
        bundle.mkdir(mode=0o700)
        write_bundle(
            bundle,
            ContainerPlan(
                process=plan,
                root=self._overlay.path,
                base=self.slot.base,
                cgroup=group.path,
                build=True,
                hostname="build",
                shm=self.limits.scratch,
                mounts=self._mounts,
                # Nobody reads these back: without its limits a scriptlet is not started.
                resources=resources_of(Limits(memory=self.limits.memory, pids=pids), group, all_of_them=True),
            ),
        )
        files = {kind: self.slot.folder / f"{number}.{kind}" for kind in ("pid", "log")}
        states = self.slot.folder / "runtime"
        command: list[str | Path] = [*self.sandboxes.runtime.command, "--root", states]
        command += ["--log", files["log"], "--log-format", "json", "run", "--bundle", bundle]
        command += ["--keep"] if self.sandboxes.runtime.keeps_ended else []
        command += ["--pid-file", files["pid"], name]
        running = self._mntns.call(process.start, command, stdin=stdin, stdout=stdout, stderr=stderr)
        if self.sandboxes.runtime.stays_in_group:
            # It waits for the kernel, and nothing here has to.
            target = wait_for_migration
            threading.Thread(target=target, args=(running.pid, self.sandboxes.hierarchies), daemon=True).start()
        return CommandContainer(running, group, bundle, states / name, files["pid"], files["log"])

    def _run_alone(self, plan: ProcessPlan, stdin: bytes, timeout: float) -> CommandResult:
        """Run a command in a container of its own."""
        begun = time.monotonic()
        owner = self.slot.base
        with (
            tempfile.TemporaryFile() as source,
            Capture(self.limits.output, uid=owner, gid=owner) as out,
            Capture(self.limits.output, uid=owner, gid=owner) as err,
        ):
            source.write(stdin)
            source.seek(0)
            os.fchown(source.fileno(), owner, owner)
            ended = self.start(plan, stdin=source, stdout=out.write_end, stderr=err.write_end, pids=self.limits.pids)
            timed_out = out_of_disk = False
            try:
                out.started()
                err.started()
                while not wait_for_exit(ended.running, min(self._quota.pause, begun + timeout - time.monotonic())):
                    timed_out = time.monotonic() >= begun + timeout
                    out_of_disk = self._quota.full()
                    if timed_out or out_of_disk:
                        break
                # Also at status 0: a script may go on after a command that found the disk full.
                out_of_disk = out_of_disk or self._quota.full()
                usage = ended.group.usage()
            finally:
                ended.end()
        started, reason = ended.started, ended.reason
        ended.remove_files()
        outcome = CommandResult(
            plan.argv,
            ended.running.returncode,
            out.kept,
            err.kept,
            time.monotonic() - begun,
            timed_out,
            bool(usage.oom_kills),
            out_of_disk,
            out.dropped + err.dropped,
            bool(usage.pids_refused),
        )
        if not started and not timed_out:
            raise BuildError(
                "command-not-started",
                f"cannot start '{' '.join(plan.argv)[:200]}': "
                f"{reason or err.kept.decode(errors='replace').strip()[-1000:]}",
                hint="check that the program is in the image; `relbuild doctor` shows what the machine lacks",
            )
        return outcome


@dataclass(frozen=True, slots=True)
class PreparedSession:
    """All of a session that is the same whatever layers it is on, made by `prepare_session`."""

    sandboxes: SandboxRegistry
    slot: SandboxSlot
    limits: BuildLimits
    mntns: MountNamespace
    quota: DiskQuota
    userns: int


@contextlib.contextmanager
def prepare_session(
    *, sandboxes: SandboxRegistry, label: str = "build", limits: BuildLimits | None = None
) -> Iterator[PreparedSession]:
    """Prepare a session whose layers need not be there yet.

    It is opened once, by `session_on`, in any thread.

    Raises EnvironmentLacking if the host lacks idmapped mounts, namespaces or control groups.
    """
    limits = limits or BuildLimits()
    with (
        sandboxes.slot(label) as slot,
        user_namespace(slot.base) as userns,
        open_mount_namespace() as mntns,
        open_disk_quota(slot.folder, limits.disk, mntns) as quota,
    ):
        yield PreparedSession(sandboxes, slot, limits, mntns, quota, userns)


@contextlib.contextmanager
def build_session(
    lowers: Sequence[Path],
    *,
    sandboxes: SandboxRegistry,
    label: str = "build",
    limits: BuildLimits | None = None,
    architecture: str = "",
) -> Iterator[BuildSession]:
    """Open a session on the unpacked layers `lowers` (lowest first).

    The layers keep the image's ids and are not changed. `architecture` (OCI's name): commands must be for it; "": they
    are not looked at.

    `upper` must be used before the block ends; then everything of the session is removed. Raises
    EnvironmentLacking if the host lacks overlayfs, idmapped mounts, namespaces or control groups.
    """
    with (
        prepare_session(sandboxes=sandboxes, label=label, limits=limits) as prepared,
        session_on(prepared, lowers, architecture=architecture) as session,
    ):
        yield session


@contextlib.contextmanager
def session_on(prepared: PreparedSession, lowers: Sequence[Path], *, architecture: str = "") -> Iterator[BuildSession]:
    """Open the session that was prepared on `lowers`, the only one. See `build_session`.

    Raises EnvironmentLacking `no-overlay`, `no-idmapped-mounts`, UsageError `too-many-layers`.
    """
    slot, limits, mntns = prepared.slot, prepared.limits, prepared.mntns
    with contextlib.ExitStack() as closing:
        overlay = mount_overlay(
            mntns,
            lowers,
            folder=prepared.quota.folder,
            userns=prepared.userns,
            base=slot.base,
            mount_points=("/proc", "/dev", *(f"/{name}" for name in _SCRATCH)),
        )
        closing.callback(os.close, overlay.handle)
        mounts = [
            Mount(
                mntns.tmpfs(name, size=limits.scratch, mode=mode, uid=slot.base, gid=slot.base),
                f"/{name}",
            )
            for name, mode in zip(_SCRATCH, (0o755, 0o1777), strict=True)
        ]
        files = RootFs(overlay.handle, slot.base)
        yield BuildSession(
            prepared.sandboxes,
            slot,
            limits,
            files,
            mntns,
            overlay,
            prepared.quota,
            prepared.userns,
            mounts,
            closing,
            architecture,
        )
