"""A running container of a container engine, looked at from this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pipeline import process
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.enforcement import asked_limits
from pipeline.model.limit import FileSystemSize, LimitReading, LinkRates, VolumeRates
from pipeline.model.limits import Limits
from pipeline.model.limits.bandwidth import LIMIT as BANDWIDTH
from pipeline.model.limits.io_bandwidth import LIMIT as IO_BANDWIDTH
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.volume import LIMIT as VOLUME
from pipeline.model.usage import Usage
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.container_user import Identity
from pipeline.sandbox.instance import resolve_identity
from pipeline.sandbox.instance_network import dial, dial_loopback
from pipeline.sandbox.launchers.client_command import run_client
from pipeline.sandbox.launchers.container_engine import UNENFORCED, ContainerEngine
from pipeline.sandbox.launchers.engine_cgroup import EngineCgroup
from pipeline.sandbox.limit_readings import ObservedInstance, read_limits
from pipeline.sandbox.output import Capture, RunningCommand, wait_for_exit
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.stop_signal import signal_number

ISOLATION = "isolation"
"""The name under which a report says what a container lacks of the isolation of relbuild's own sandbox."""

_CLIENT_TIMEOUT = 30.0
"""Seconds for a command of the engine, which takes a tenth of one."""

_LAST_OUTPUT_TIMEOUT = 1.0
"""Seconds that the last output of an ended instance may take to be read: more than a busy machine needs."""

_OUT_OF_MEMORY = "oom"
"""A file that Podman's monitor (conmon) leaves in the client's working directory when the kernel ends the container."""

_NO_USAGE = Usage(None, None, None, None, None)


@dataclass(slots=True)
class EngineInstance:
    """A container of an engine.

    `container` is its name there, `running` the engine's client, which ends with its exit status.

    `pid` is that of its first process (-1: it had ended, or belongs to another kernel), `group` its control group,
    `network` a descriptor of its network namespace, -1 if there is none, `folder` the client's
    working directory. `ports` are the published ones: on this
    machine's loopback by port of the container.
    """

    name: str
    container: str
    engine: ContainerEngine
    limits: Limits
    files: RootFs
    pid: int
    group: EngineCgroup
    network: int
    ports: Mapping[int, int]
    volumes: Sequence[str]
    running: RunningCommand
    output: Capture
    folder: Path
    first_id: int = 0
    user: str = ""
    _last_usage: Usage = _NO_USAGE
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> bool:
        """True while the container runs."""
        return self.running.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status of its first process, 128 + n when signal n ended it; None while it runs."""
        return self.running.poll()

    @property
    def main_user(self) -> tuple[int, int]:
        """User and group of its first process."""
        found = self.identity(self.user)
        return found.uid, found.gid

    @property
    def log(self) -> bytes:
        """The output so far, stdout and stderr together, up to a bound."""
        return self.output.log

    @property
    def log_dropped(self) -> int:
        """Bytes of the output beyond the bound."""
        return self.output.dropped

    def processes(self) -> Collection[int]:
        """As `LaunchedInstance` says; none of an engine whose processes are in another kernel."""
        return self.group.processes()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; return its exit code, or None."""
        wait_for_exit(self.running, timeout)
        code = self.exit_code
        if code is not None:
            self.output.catch_up(_LAST_OUTPUT_TIMEOUT)
        return code

    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> CommandResult:
        """Execute a command by the engine, and wait for its end.

        One that takes longer than `timeout` seconds is left to run until the container ends.
        """
        command = self.engine.execute(self.container, argv, user, environment or {})
        done = run_client(command, stdin=stdin, timeout=timeout)
        return CommandResult(
            tuple(argv),
            done.status,
            done.stdout,
            done.stderr,
            done.took,
            done.timed_out,
            dropped=done.stdout_dropped + done.stderr_dropped,
            stderr_dropped=done.stderr_dropped,
        )

    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
        """Open a TCP connection to `port`, in its network or where the engine publishes it."""
        if not self.alive:
            raise ConnectionRefusedError("the instance has ended")
        if self.network >= 0:
            if address is not None:
                return dial(self.network, address, port, timeout)
            return dial_loopback(self.network, port, timeout)
        if port not in self.ports:
            raise ConnectionRefusedError(f"port {port} is not published: it is not among the image's exposed ports")
        return socket.create_connection(("127.0.0.1", self.ports[port]), timeout)

    def identity(self, user: str) -> Identity:
        """Resolve `user` to the ids that it has in this image."""
        return resolve_identity(self.files, user)

    def stop(self, stop_signal: str, within: float) -> int | None:
        """Send a signal and wait up to `within` seconds for the end; return the exit code, or None."""
        self._signal(signal_number(stop_signal))
        return self.wait(within)

    def kill(self) -> int:
        """Kill it; return the exit code (137 if it was running)."""
        self.usage()
        with self._lock:
            if self.alive:
                self._signal(9)
            if not wait_for_exit(self.running, _CLIENT_TIMEOUT):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.running.pid, 9)
            self.running.wait()
        self.output.catch_up(_LAST_OUTPUT_TIMEOUT)
        return self.running.returncode

    def _signal(self, number: int) -> None:
        process.run(self.engine.signal(self.container, number), timeout=_CLIENT_TIMEOUT, check=False)

    def readings(self) -> tuple[LimitReading, ...]:
        """Return the limits as the kernel has them, and what its isolation lacks."""
        lacking = self.engine.not_isolated
        isolation = (LimitReading(ISOLATION, 1, 0, False, lacking),) if lacking else ()
        if not self.engine.visible or not self.alive:
            why = f"{self.engine.name} was told, and its containers' limits cannot be read back from here"
            if self.engine.visible:
                why = "the container had ended before it could be read back"
            asked = (*asked_limits(self.limits), (TMPFS.name, self.limits[TMPFS] or 0))
            return (
                *(LimitReading(name, value, None, False, UNENFORCED.get(name, why)) for name, value in asked),
                *isolation,
            )
        observed = ObservedInstance(
            self.group,
            self.pid,
            self._scratch(),
            LinkRates(why=UNENFORCED[BANDWIDTH.name]),
            [FileSystemSize(path, None, why=UNENFORCED[VOLUME.name]) for path in self.volumes],
            volume_rates=VolumeRates(why=UNENFORCED[IO_BANDWIDTH.name]),
        )
        return (*read_limits(self.limits, observed), *isolation)

    def _scratch(self) -> FileSystemSize | None:
        with contextlib.suppress(OSError), self.files.folder("/tmp") as handle:  # noqa: S108 - in the container
            status = os.fstatvfs(handle)
            return FileSystemSize("/tmp", status.f_blocks * status.f_frsize, status.f_files)  # noqa: S108
        return None

    def usage(self) -> Usage:
        """Return the resources that it has used; after its end, as far as was read before."""
        usage = self.group.usage()
        if usage.cpu_time is None and usage.peak_memory is None:
            usage = self._last_usage
            # The kernel's count went with the control group.
            if not usage.oom_kills and (self.folder / _OUT_OF_MEMORY).exists():
                usage = replace(usage, oom_kills=1)
        self._last_usage = replace(usage, output_dropped=self.output.dropped)
        return self._last_usage
