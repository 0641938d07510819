"""Run commands in containers on an overlay over the layers of an image being built.

Every command gets a new container on the same overlay, so that no process that it started outlives it. /run and /tmp
are scratch file systems of the session: files that scriptlets create there are seen by later commands and do not come
into the image.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath

from pipeline import process
from pipeline.errors import BuildError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits import Limits
from pipeline.sandbox.cgroup_migration import wait_for_migration
from pipeline.sandbox.disk_quota import DiskQuota, open_disk_quota
from pipeline.sandbox.entry_program import require_entry_program
from pipeline.sandbox.idmap import user_namespace
from pipeline.sandbox.kill import kill_and_wait
from pipeline.sandbox.limit_readings import resources_of
from pipeline.sandbox.mount_namespace import MountNamespace, open_mount_namespace
from pipeline.sandbox.output import Capture, wait_for_exit
from pipeline.sandbox.overlay import Overlay, mount_overlay, mount_without_path
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime import last_message
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


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command that has ended.

    `status` is its exit status, 128 + n when signal n ended it. `dropped` are the bytes of output beyond the limit.
    `took` is seconds. `pids_refused`: the kernel refused it a process beyond the limit of their number.
    `unsupported` is what it asked for that a container does and a traced command cannot, or "".
    """

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    took: float
    timed_out: bool = False
    out_of_memory: bool = False
    out_of_disk: bool = False
    dropped: int = 0
    pids_refused: bool = False
    unsupported: str = ""

    @property
    def ok(self) -> bool:
        """True if it ended by itself, with status 0, within its memory, and the disk is not full."""
        return self.status == 0 and not (self.timed_out or self.out_of_memory or self.out_of_disk)

    @property
    def too_large(self) -> bool:
        """True if its status is that of a command killed for writing beyond a file's limit."""
        return self.status == 128 + signal.SIGXFSZ


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
        for point in ("/proc", "/dev", *(f"/{name}" for name in _SCRATCH)):
            self.files.require_mount_point(point)
        self.files.require_working_directory(directory)
        variables = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8", **(environment or {})}
        plan = ProcessPlan(
            tuple(argv),
            tuple(f"{name}={value}" for name, value in variables.items()),
            directory,
            capabilities=BUILD_CAPABILITIES,
            rlimits=(("RLIMIT_NOFILE", self.limits.open_files), ("RLIMIT_FSIZE", self.limits.disk)),
        )
        if self.architecture:
            require_entry_program(self.files, plan, self.architecture)
        number = f"c{next(self._numbers)}"
        group = self.slot.group.below(number)
        write_bundle(
            self.slot.folder,
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
                resources=resources_of(
                    Limits(memory=self.limits.memory, pids=self.limits.pids), group, all_of_them=True
                ),
            ),
        )
        files = {name: self.slot.folder / f"{number}.{name}" for name in ("pid", "log")}
        command: list[str | Path] = [*self.sandboxes.runtime.command, "--root", self.slot.folder / "runtime"]
        command += ["--log", files["log"], "--log-format", "json", "run", "--bundle", self.slot.folder]
        command += ["--keep"] if self.sandboxes.runtime.keeps_ended else []
        command += ["--pid-file", files["pid"], f"{self.slot.name}-{number}"]
        begun = time.monotonic()
        owner = self.slot.base
        with (
            tempfile.TemporaryFile() as source,
            Capture(self.limits.output, uid=owner, gid=owner) as out,
            Capture(self.limits.output, uid=owner, gid=owner) as err,
        ):
            source.write(stdin)
            source.seek(0)
            os.fchown(source.fileno(), self.slot.base, self.slot.base)
            running = self._mntns.call(process.start, command, stdin=source, stdout=out.write_end, stderr=err.write_end)
            out.started()
            err.started()
            timed_out = out_of_disk = False
            try:
                if self.sandboxes.runtime.stays_in_group:
                    wait_for_migration(running.pid, self.sandboxes.hierarchies)
                while not wait_for_exit(running, min(self._quota.pause, begun + timeout - time.monotonic())):
                    timed_out = time.monotonic() >= begun + timeout
                    out_of_disk = self._quota.full()
                    if timed_out or out_of_disk:
                        break
                # Also at status 0: a script may go on after a command that found the disk full.
                out_of_disk = out_of_disk or self._quota.full()
                usage = group.usage()
            finally:
                # Also when the command has ended by itself: a runtime that was killed leaves processes running.
                kill_and_wait(running, group)
                group.remove()
        started = files["pid"].exists()
        outcome = CommandResult(
            tuple(argv),
            running.returncode,
            out.kept,
            err.kept,
            time.monotonic() - begun,
            timed_out,
            bool(usage.oom_kills),
            out_of_disk,
            out.dropped + err.dropped,
            bool(usage.pids_refused),
        )
        reason = last_message(files["log"])
        for file in files.values():
            file.unlink(missing_ok=True)
        shutil.rmtree(self.slot.folder / "runtime", ignore_errors=True)
        if not started and not timed_out:
            raise BuildError(
                "command-not-started",
                f"cannot start '{' '.join(argv)[:200]}': {reason or err.kept.decode(errors='replace').strip()[-1000:]}",
                hint="check that the program is in the image; `relbuild doctor` shows what the machine lacks",
            )
        return outcome


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
    limits = limits or BuildLimits()
    with (
        sandboxes.slot(label) as slot,
        user_namespace(slot.base) as userns,
        open_mount_namespace() as mntns,
        open_disk_quota(slot.folder, limits.disk, mntns) as quota,
        contextlib.ExitStack() as closing,
    ):
        overlay = mount_overlay(
            mntns,
            lowers,
            folder=quota.folder,
            userns=userns,
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
        yield BuildSession(sandboxes, slot, limits, files, mntns, overlay, quota, userns, mounts, closing, architecture)
