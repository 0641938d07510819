"""A running container of an image: run commands in it, connect, read limits, stop it.

Checks run from outside, so the image needs no shell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, field, replace
from itertools import count
from pathlib import Path

from pipeline import process
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.account_files import ACCOUNTS_LIMIT
from pipeline.model.limit import LimitReading, LinkRates
from pipeline.model.limits import Limits
from pipeline.model.limits.bandwidth import LIMIT as BANDWIDTH
from pipeline.model.limits.io_bandwidth import LIMIT as IO_BANDWIDTH
from pipeline.model.usage import Usage
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.container_user import Identity, resolve_user
from pipeline.sandbox.entry_program import require_entry_program
from pipeline.sandbox.exec_command import AttachedCommand, ExecCommand, prepare_exec
from pipeline.sandbox.instance_network import Link, dial, dial_loopback
from pipeline.sandbox.io_limits import lift_io_limits, limit_io, read_io_limits
from pipeline.sandbox.kill import kill_and_wait
from pipeline.sandbox.limit_readings import ObservedInstance, read_limits
from pipeline.sandbox.mount_namespace import MountNamespace
from pipeline.sandbox.mounts import WritableFileSystems
from pipeline.sandbox.output import (
    Capture,
    RunningCommand,
    wait_for_exit,
    wait_for_pid,
)
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime_bundle import ProcessPlan, merge_environment
from pipeline.sandbox.sandbox_registry import SandboxRegistry, SandboxSlot
from pipeline.sandbox.stop_signal import signal_number, wait_until_taken

_OUTPUT_LIMIT = 1 << 20
"""Bytes kept of a command's stdout and of its stderr."""


_LAST_OUTPUT_TIMEOUT = 1.0
"""Seconds that the last output of an ended instance may take to be read: more than a busy machine needs."""


@dataclass(slots=True)
class Instance:
    """A running container of an image, made by `pipeline.sandbox.launch`.

    `plan` is its main process; commands run with its user and environment by default. `pid` is that of the main process
    on the host, -1 if it ended at once. `link` is its network link; None: there is none, for the reason
    `no_link_reason`. `architecture` is the image's (OCI's name).
    """

    name: str
    sandboxes: SandboxRegistry
    slot: SandboxSlot
    files: RootFs
    plan: ProcessPlan
    limits: Limits
    file_systems: WritableFileSystems
    link: Link | None
    pid: int
    _: KW_ONLY
    no_link_reason: str = ""
    architecture: str = ""
    _mntns: MountNamespace
    _running: RunningCommand
    _output: Capture
    _pidfd: int
    _network: int
    _last_usage: Usage
    _settled: bool = False
    _launched: float = field(default_factory=time.monotonic)
    _numbers: Iterator[int] = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- state ---------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True while the instance's main process runs."""
        return self._running.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status of its main process, 128 + n when signal n ended it; None while it runs."""
        return self._running.poll()

    @property
    def first_id(self) -> int:
        """The number that the image's user 0 has on the host."""
        return self.slot.base

    @property
    def main_user(self) -> tuple[int, int]:
        """User and group of its first process, as the image has them."""
        return self.plan.uid, self.plan.gid

    def processes(self) -> Collection[int]:
        """Return the PIDs of its processes, as the host has them."""
        return self.slot.group.processes()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for the process to end; return its exit code, or None.

        Once it has ended, all that it printed is in `log`.
        """
        wait_for_exit(self._running, timeout)
        code = self.exit_code
        if code is not None:
            self._output.catch_up(_LAST_OUTPUT_TIMEOUT)
        return code

    @property
    def log(self) -> bytes:
        """The output so far, stdout and stderr together.

        A note at its end says how much was dropped beyond the bound.
        """
        return self._output.log

    @property
    def log_dropped(self) -> int:
        """Bytes of the output beyond the bound."""
        return self._output.dropped

    # --- questions -----------------------------------------------------------------------------

    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> CommandResult:
        """Run a command in the instance and wait for its end.

        It runs as the instance's user or as `user` (`name`, `uid[:gid]`). All processes that it started are killed when
        it ends or when `timeout` (seconds) passes. A command that cannot be started has status 127 and the reason as
        stderr. Raises SmokeError `user-unknown`, `program-foreign`, ProcessLookupError if the instance has ended.
        """
        plan = self._plan_command(argv, user, environment)
        begun = time.monotonic()
        try:
            command = self._exec_command(plan)
        except FileNotFoundError:
            raise ProcessLookupError("the instance has ended") from None
        uid, gid = self.slot.base + plan.uid, self.slot.base + plan.gid
        with (
            tempfile.TemporaryFile() as source,
            Capture(_OUTPUT_LIMIT, uid=uid, gid=gid) as out,
            Capture(_OUTPUT_LIMIT, uid=uid, gid=gid) as err,
        ):
            source.write(stdin)
            source.seek(0)
            # In the private mount namespace: the runtime opens the container's root first.
            running = self._mntns.call(
                process.start, command.words, stdin=source, stdout=out.write_end, stderr=err.write_end
            )
            out.started()
            err.started()
            try:
                timed_out = not _command_ended(running, command.pid_file, begun + timeout)
            finally:
                # The runtime waits until no process has the pipes open, and then exits with the command's status.
                with self._flowing():
                    kill_and_wait(running, command.group)
                    command.group.remove()
        status, stderr = running.returncode, err.kept
        if not command.pid_file.exists() and not timed_out:
            status, stderr = 127, command.refusal.encode() or stderr
        command.remove_files()
        return CommandResult(
            tuple(argv),
            status,
            out.kept,
            stderr,
            time.monotonic() - begun,
            timed_out,
            dropped=out.dropped + err.dropped,
            stderr_dropped=err.dropped,
        )

    @contextlib.contextmanager
    def attach(
        self,
        argv: Sequence[str],
        streams: tuple[int, int, int],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> Iterator[AttachedCommand]:
        """Start a command with three streams of the caller's.

        All that it started is killed when the block ends. With `terminal` the streams are one terminal, and the command
        gets one of the container's own. Raises FileNotFoundError if the instance has ended, SmokeError as `execute`.
        """
        plan = self._plan_command(argv, user, environment)
        command = self._exec_command(plan, terminal=terminal)
        stdin, stdout, stderr = streams
        for stream in () if terminal else streams:
            if stat.S_ISFIFO(os.fstat(stream).st_mode):  # So that the command may open /dev/stdout again.
                os.fchown(stream, self.slot.base + plan.uid, self.slot.base + plan.gid)
        running = self._mntns.call(process.start, command.words, stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            yield AttachedCommand(running, command)
        finally:
            with self._flowing():
                kill_and_wait(running, command.group)
                command.group.remove()
            command.remove_files()

    def _plan_command(self, argv: Sequence[str], user: str, environment: Mapping[str, str] | None) -> ProcessPlan:
        plan = replace(self.plan, argv=tuple(argv))
        if user:
            plan = _as_user(plan, self.identity(user))
        if environment:
            plan = replace(plan, environment=merge_environment(plan.environment, environment))
        require_entry_program(self.files, plan, self.architecture)
        return plan

    def _exec_command(self, plan: ProcessPlan, *, terminal: bool = False) -> ExecCommand:
        with self._lock:
            number = next(self._numbers)
        return prepare_exec(self.sandboxes.runtime, self.slot, number, plan, terminal=terminal)

    @contextlib.contextmanager
    def _flowing(self) -> Iterator[None]:
        """Suspend the I/O bandwidth limit for as long as the block lasts.

        A killed process cannot end before its pending I/O has.
        """
        limit = self.limits[IO_BANDWIDTH]
        if limit is not None:
            lift_io_limits(self.slot.group, self.slot.folder)
        try:
            yield
        finally:
            if limit is not None and self.alive:
                limit_io(self.slot.group, self.slot.folder, self.file_systems.devices(), limit)

    @property
    def address(self) -> str | None:
        """Its IPv4 address, or None if it has no link."""
        return None if self.link is None else self.link.address

    @property
    def gateway(self) -> str | None:
        """The address of its link's outer end, from which connections from outside come."""
        return None if self.link is None else self.link.gateway

    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
        """Open a TCP connection to `port`, with `timeout` (seconds) set on the socket.

        To the instance's own `address` it goes from outside over the link, under its bandwidth limit; to any other
        address, or to the loopback (IPv4, then IPv6) without `address`, from within the instance's network namespace.
        Raises OSError (ConnectionRefusedError, TimeoutError …).
        """
        if self._network < 0 or self._settled:
            raise ConnectionRefusedError("the instance has ended")
        if self.link is not None and address == self.link.address:
            return dial(self.link.outside, address, port, timeout)
        if address is not None:
            return dial(self._network, address, port, timeout)
        return dial_loopback(self._network, port, timeout)

    def identity(self, user: str) -> Identity:
        """Resolve `user` to the ids that it has in this image.

        Raises SmokeError `user-unknown`, `group-unknown`.
        """
        return resolve_identity(self.files, user)

    # --- end -----------------------------------------------------------------------------------

    def stop(self, stop_signal: str, within: float) -> int | None:
        """Send a signal (`SIGTERM`, `TERM`, `15`) and wait up to `within` seconds for the end.

        Returns the exit code, or None if it still runs. The signal is sent once the first process handles it: the
        kernel drops a signal for which the first process of a container has no handler, as until it has started.
        """
        number, ends = signal_number(stop_signal), time.monotonic() + within
        if self._pidfd >= 0:
            wait_until_taken(self.pid, number, self._launched, ends, self.wait)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        return self.wait(max(0.0, ends - time.monotonic()))

    def kill(self) -> int:
        """Kill all its processes; return the exit code (137 if it was running)."""
        self._last_usage = self.usage()
        lift_io_limits(self.slot.group, self.slot.folder)
        kill_and_wait(self._running, self.slot.group)
        self._output.finish()
        return self._running.returncode

    def settle(self) -> None:
        """Kill it and keep the final usage; link and file systems may be closed afterwards."""
        if not self._settled:
            self.kill()
            self._last_usage = self.usage()
            self._settled = True

    # --- limits and usage ------------------------------------------------------------------------

    def readings(self) -> tuple[LimitReading, ...]:
        """Return the limits that were asked for, as the kernel has them."""
        return read_limits(self.limits, self.measured())

    def measured(self) -> ObservedInstance:
        """Return the present state that limits are checked against."""
        link_rates = LinkRates(why=self.no_link_reason) if self.no_link_reason else LinkRates()
        if self.link is not None and self.limits[BANDWIDTH] is not None:
            link_rates = LinkRates(*self.link.rates(), why=self.link.unlimited)
        return ObservedInstance(
            self.slot.group,
            self.pid,
            self.file_systems.space("/tmp"),  # noqa: S108 - in the container
            link_rates,
            [self.file_systems.space(path) for path in self.file_systems.volumes],
            self.sandboxes.state,
            read_io_limits(self.slot.group, self.file_systems.devices()),
        )

    def usage(self) -> Usage:
        """Return the resources that the instance has used.

        After its end: the total, if the runtime keeps ended containers' groups, else the last reading before.
        """
        if self._settled:
            return self._last_usage
        usage = self.slot.group.usage()
        if usage.cpu_time is None and usage.peak_memory is None:
            usage = self._last_usage
        into, out = (self.link.traffic() if self.link is not None else None) or (None, None)
        self._last_usage = replace(
            usage,
            network_in=into,
            network_out=out,
            full=self.file_systems.full(),
            output_dropped=self._output.dropped,
        )
        return self._last_usage


def resolve_identity(files: RootFs, user: str) -> Identity:
    """Resolve a user by the image's own /etc/passwd and /etc/group."""
    passwd, group = (
        (files.read(path, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace")
        for path in ("/etc/passwd", "/etc/group")
    )
    return resolve_user(user, passwd, group)


def _as_user(plan: ProcessPlan, identity: Identity) -> ProcessPlan:
    environment = merge_environment(plan.environment, {"HOME": identity.home})
    return replace(plan, uid=identity.uid, gid=identity.gid, groups=identity.groups, environment=environment)


def _command_ended(running: RunningCommand, pid_file: Path, deadline: float) -> bool:
    """Wait for a command, or the runtime that starts it, to end; return False at the deadline."""
    pause = 0.005
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return wait_for_pid(int(pid_file.read_text()), left)
        if wait_for_exit(running, min(pause, left)):
            return True
        pause = min(pause * 1.5, 0.01)
    return False
