"""A pod in which an image is tested, queried by kubectl from outside of its cluster."""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pipeline import process
from pipeline.errors import SmokeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.enforcement import asked_limits
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.limits.cpus import LIMIT as CPUS
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.open_files import LIMIT as OPEN_FILES
from pipeline.model.limits.pids import LIMIT as PIDS
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.volume import LIMIT as VOLUME
from pipeline.model.usage import Usage
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.container_user import Identity, resolve_user
from pipeline.sandbox.launchers.client_command import run_client
from pipeline.sandbox.launchers.container_engine import UNENFORCED
from pipeline.sandbox.launchers.engine_instance import ISOLATION
from pipeline.sandbox.launchers.kubectl import Kubectl
from pipeline.sandbox.launchers.pod_manifest import PodStart
from pipeline.sandbox.launchers.pod_watch import PodStatus, PodWatch
from pipeline.sandbox.launchers.port_forwards import PortForwards
from pipeline.sandbox.output import Capture
from pipeline.sandbox.rootfs import RootFs

NOT_ISOLATED = "the pod has the cluster's network, its node's user IDs and the runtime's default filter of system calls"
"""The part that a pod lacks of the isolation that relbuild's own sandbox has."""

_TOLD = "Kubernetes was told, and what the kernel of the pod's node has cannot be read back from here"

POD_LIMITS: Mapping[str, str] = {
    **UNENFORCED,
    CPUS.name: _TOLD,
    MEMORY.name: _TOLD,
    TMPFS.name: _TOLD,
    VOLUME.name: "Kubernetes was told, which evicts a pod some time after a volume has outgrown its size",
    PIDS.name: "a pod's manifest has no limit of processes",
    OPEN_FILES.name: "a pod's manifest has no limit of open files",
}
"""Reasons why each limit reads as unenforced."""

_CLIENT_TIMEOUT = 30.0
"""Seconds for a command of kubectl, which takes less than one."""

_KILL_TIMEOUT = 30.0
"""Seconds for a pod to be killed: it is told its node, which waits a second for its end."""

_KILL_MARGIN = 30
"""Seconds after the time in which an instance must stop, after which Kubernetes kills it."""

_LAST_OUTPUT_TIMEOUT = 5.0
"""Seconds that the last output of an ended pod may take to come over the network."""

_EXIT_LINE = re.compile(rb"command terminated with exit code \d+\n\Z")
"""The line that kubectl adds to the stderr of a command that failed."""

_NOT_EXECUTED = 127


@dataclass(slots=True)
class PodInstance:
    """A running pod.

    `passwd` and `group` are the image's files. `files` is an empty folder: the image's files are on another machine.
    """

    name: str
    start: PodStart
    kubectl: Kubectl
    files: RootFs
    watch: PodWatch
    forwards: PortForwards
    output: Capture
    passwd: str = ""
    group: str = ""
    pid: int = -1
    first_id: int = 0

    @property
    def limits(self) -> Limits:
        """The limits that were asked for."""
        return self.start.limits

    @property
    def alive(self) -> bool:
        """True until the cluster tells that the container has ended."""
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Exit status of its first process; None while it runs.

        137 where its pod was removed or evicted.
        """
        return self.watch.status.exit_code

    @property
    def main_user(self) -> tuple[int, int]:
        """User and group of its first process."""
        return self.start.identity.uid, self.start.identity.gid

    @property
    def log(self) -> bytes:
        """The output so far, stdout and stderr together, up to a bound."""
        return self.output.log

    @property
    def log_dropped(self) -> int:
        """Bytes of the output beyond the bound."""
        return self.output.dropped

    def processes(self) -> Collection[int]:
        """As `LaunchedInstance` says: none, they are another kernel's."""
        return ()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; return its exit code, or None."""
        code = self.watch.wait_for(_has_ended, timeout).exit_code
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
        """Execute a command by `kubectl exec`, and wait for its end.

        One that takes longer than `timeout` seconds is left to run until the pod ends. Raises SmokeError
        `command-user`: kubectl cannot choose a user.
        """
        if user:
            raise SmokeError(
                "command-user",
                f"a command cannot be executed as '{user}' in a pod",
                hint="leave out 'user', or --launcher",
            )
        given = ("env", *(f"{key}={value}" for key, value in environment.items())) if environment else ()
        done = run_client(self.kubectl.execute(self.start.name, [*given, *argv]), stdin=stdin, timeout=timeout)
        status, stderr = done.status, done.stderr
        if status and not done.timed_out:
            stderr, lines = _EXIT_LINE.subn(b"", stderr)
            # Of a command that has printed so much that this line was dropped, it is known that it was executed.
            status = status if lines or done.stderr_dropped else _NOT_EXECUTED
        return CommandResult(
            tuple(argv),
            status,
            done.stdout,
            stderr,
            done.took,
            done.timed_out,
            dropped=done.stdout_dropped + done.stderr_dropped,
            stderr_dropped=done.stderr_dropped,
        )

    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
        """Open a TCP connection to `port`, forwarded by kubectl to the pod's loopback.

        kubectl takes connections also when nothing in the pod does. So the port that is asked no more than that is
        connected to only while the pod's node says that it takes connections.
        """
        if not self.alive:
            raise ConnectionRefusedError("the instance has ended")
        if port == self.start.probed and not self.watch.status.ready:
            raise ConnectionRefusedError(f"port {port} takes no connections: the pod is not ready")
        begun = time.monotonic()
        local = self.forwards.local_port(port, timeout)
        return socket.create_connection(("127.0.0.1", local), max(0.001, timeout - (time.monotonic() - begun)))

    def identity(self, user: str) -> Identity:
        """Resolve `user` to the ids that it has in this image."""
        return resolve_user(user, self.passwd, self.group)

    def stop(self, stop_signal: str, within: float) -> int | None:
        """Have the pod deleted, whose container gets the image's stop signal, and wait for the end."""
        self._delete(math.ceil(within) + _KILL_MARGIN)
        return self.wait(within)

    def kill(self) -> int:
        """Kill it; return the exit code (137 if it was running)."""
        if self.alive:
            self._delete(1)
        code = self.wait(_KILL_TIMEOUT)
        return 137 if code is None else code

    def _delete(self, grace: int) -> None:
        process.run(self.kubectl.delete(self.start.name, grace), timeout=_CLIENT_TIMEOUT, check=False)

    def readings(self) -> tuple[LimitReading, ...]:
        """Return the limits, none of which can be read back, and what its isolation lacks."""
        asked = (
            *asked_limits(self.limits),
            (TMPFS.name, self.limits[TMPFS]),
        )
        return (
            *(LimitReading(name, value, None, False, POD_LIMITS[name]) for name, value in asked),
            *(
                LimitReading(f"volume {path}", self.limits[VOLUME], None, False, POD_LIMITS[VOLUME.name])
                for path in self.start.volumes
            ),
            LimitReading(ISOLATION, 1, 0, False, NOT_ISOLATED),
        )

    def usage(self) -> Usage:
        """Return what is known of its resources: that the kernel ended it for want of memory."""
        killed = 1 if self.watch.status.reason == "OOMKilled" else None
        return replace(_NO_USAGE, oom_kills=killed, output_dropped=self.output.dropped)


_NO_USAGE = Usage(None, None, None, None, None)


def _has_ended(status: PodStatus) -> bool:
    return status.exit_code is not None
