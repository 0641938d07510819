"""A launched image: profile `run`. What is asked of it is asked from outside, so it needs no shell."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from pipeline import process
from pipeline.errors import SmokeError
from pipeline.model.smoke import LimitReading, Limits
from pipeline.sandbox import kernel
from pipeline.sandbox.bundle import ProcessPlan, process_spec
from pipeline.sandbox.cgroups import Usage
from pipeline.sandbox.ending import end
from pipeline.sandbox.keeper import Keeper
from pipeline.sandbox.limits import read_limits
from pipeline.sandbox.output import Capture, Running, ends, wait
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime import last_message
from pipeline.sandbox.session import Outcome
from pipeline.sandbox.station import Berth, Station
from pipeline.sandbox.users import ACCOUNTS_LIMIT, Identity, resolve_user

ANSWER_LIMIT = 1 << 20
"""Bytes kept of a probe's stdout and of its stderr."""


@dataclass(slots=True)
class Instance:
    """Made by `pipeline.sandbox.launch`. `plan` is its own process, as whom commands run too unless told
    otherwise."""

    name: str
    station: Station
    berth: Berth
    files: RootFs
    plan: ProcessPlan
    limits: Limits
    scratch: int
    _keeper: Keeper
    _running: Running
    _output: Capture
    _pid: int
    _pidfd: int
    _network: int
    _last_usage: Usage
    _numbers: Iterator[int] = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- state ---------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Does its own process still run?"""
        return self._running.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status of its own process, 128 + n when signal n ended it; None while it runs."""
        return self._running.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; the exit code, or None."""
        wait(self._running, timeout)
        return self.exit_code

    @property
    def log(self) -> bytes:
        """What it printed so far, stdout and stderr together, with a note at the end if the log's bound was
        passed."""
        kept, dropped = self._output.kept, self._output.dropped
        return kept + f"\n[relbuild: {dropped} more bytes were dropped]\n".encode() if dropped else kept

    # --- questions -----------------------------------------------------------------------------

    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Outcome:
        """Run a command in the instance, as its own user or as `user` (`name`, `uid[:gid]`), and wait for its
        end. All that it started is killed when it ends or when `timeout` (seconds) passes. A command that
        cannot be started has status 127 and the reason as stderr. Raises SmokeError `user-unknown`.
        """
        plan = replace(self.plan, argv=tuple(argv))
        if user:
            plan = _as_user(plan, self.identity(user))
        if environment:
            plan = replace(plan, environment=merge_environment(plan.environment, environment))
        with self._lock:
            number = f"exec{next(self._numbers)}"
        folder = self.berth.folder
        spec, log, pid = (folder / f"{number}.{kind}" for kind in ("json", "log", "pid"))
        spec.write_text(json.dumps(process_spec(plan)))
        # A group of its own that only tracks: what it contains is exactly what this command has started.
        controller, container = self.berth.group.tracker
        group = self.berth.group.below(number)
        begun = time.monotonic()
        try:
            (container / number).mkdir()
        except FileNotFoundError:
            return Outcome(tuple(argv), 127, b"", b"the instance has ended", 0.0)
        where = f"{controller}:{number}" if controller else number
        command: list[str | Path] = [self.station.runtime.path, "--root", folder / "runtime"]
        command += ["--log", log, "--log-format", "json", "exec", "--cgroup", where]
        command += ["--process", spec, "--pid-file", pid, self.berth.name]
        owner = {"uid": self.berth.base + plan.uid, "gid": self.berth.base + plan.gid}
        with (
            tempfile.TemporaryFile() as fed,
            Capture(ANSWER_LIMIT, **owner) as out,
            Capture(ANSWER_LIMIT, **owner) as err,
        ):
            fed.write(stdin)
            fed.seek(0)
            # In the keeper's namespace: the runtime goes to the container's root first.
            running = self._keeper.do(process.start, command, stdin=fed, stdout=out.write_end, stderr=err.write_end)
            out.started()
            err.started()
            try:
                timed_out = not _command_ended(running, pid, begun + timeout)
            finally:
                # The runtime waits for whatever holds the pipes, and then gives the command's status.
                end(running, group)
                group.remove()
        status, stderr = running.returncode, err.kept
        if not pid.exists() and not timed_out:
            status, stderr = 127, last_message(log).encode() or stderr
        for file in (spec, log, pid):
            file.unlink(missing_ok=True)
        return Outcome(
            tuple(argv),
            status,
            out.kept,
            stderr,
            time.monotonic() - begun,
            timed_out,
            dropped=out.dropped + err.dropped,
        )

    def connect(self, port: int, *, timeout: float) -> socket.socket:
        """A TCP connection to `port` on the instance's loopback, IPv4 first, then IPv6. `timeout` (seconds)
        stays set on the socket. Raises OSError (ConnectionRefusedError, TimeoutError …)."""

        if self._network < 0:
            raise ConnectionRefusedError("the instance has ended")

        def dial() -> socket.socket:
            kernel.setns(self._network, kernel.CLONE_NEWNET)
            try:
                return _dial(socket.AF_INET, "127.0.0.1", port, timeout)
            except ConnectionRefusedError:
                return _dial(socket.AF_INET6, "::1", port, timeout)

        # A socket belongs to the namespace of the thread that made it, wherever it is used later.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="dial") as pool:
            return pool.submit(dial).result()

    def identity(self, user: str) -> Identity:
        """Who `user` is in this image. Raises SmokeError `user-unknown`, `group-unknown`."""
        return identity_in(self.files, user)

    # --- end -----------------------------------------------------------------------------------

    def stop(self, stop_signal: str, within: float) -> int | None:
        """Send a signal (`SIGTERM`, `TERM`, `15`) and wait up to `within` seconds; the exit code, or None if it
        still runs. The kernel drops a signal for which the first process of a container has no handler."""
        number = signal_number(stop_signal)
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        return self.wait(within)

    def kill(self) -> int:
        """End it at once, with everything in it; the exit code (137 if it was running)."""
        self._last_usage = self.usage()
        end(self._running, self.berth.group)
        self._output.finish()
        return self._running.returncode

    # --- limits and usage ------------------------------------------------------------------------

    def readings(self) -> tuple[LimitReading, ...]:
        """The limits that were asked for, as the kernel has them."""
        return read_limits(self.limits, self.berth.group, pid=self._pid, scratch=self.scratch)

    def usage(self) -> Usage:
        """What it has used. After its end: all that it used, if the runtime keeps ended containers, else
        what the last look saw."""
        usage = self.berth.group.usage()
        if usage.cpu_time is None and usage.peak_memory is None:
            return self._last_usage
        self._last_usage = usage
        return usage


def identity_in(files: RootFs, user: str) -> Identity:
    """`resolve_user` with the accounts of the image."""
    passwd, group = (
        (files.read(path, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace")
        for path in ("/etc/passwd", "/etc/group")
    )
    return resolve_user(user, passwd, group)


def _as_user(plan: ProcessPlan, identity: Identity) -> ProcessPlan:
    environment = merge_environment(plan.environment, {"HOME": identity.home})
    return replace(plan, uid=identity.uid, gid=identity.gid, groups=identity.groups, environment=environment)


def merge_environment(environment: Sequence[str], changes: Mapping[str, str]) -> tuple[str, ...]:
    """`NAME=value` lines with the values of `changes` put in."""
    values = {name: value for name, _, value in (line.partition("=") for line in environment)}
    return tuple(f"{name}={value}" for name, value in {**values, **changes}.items())


def signal_number(text: str) -> int:
    """`SIGTERM`, `TERM` or `15` → 15; `SIGRTMIN+3` too; empty → SIGTERM (image-spec, StopSignal).

    Raises SmokeError `signal-unknown`.
    """
    name = (text or "SIGTERM").upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if name.isdecimal() and 0 < int(name) < signal.NSIG:
        return int(name)
    found = getattr(signal, f"SIG{base}", None)
    if isinstance(found, signal.Signals) and (not plus or offset.isdecimal()):
        return int(found) + int(offset or 0)
    raise SmokeError("signal-unknown", f"'{text}' is not a signal", hint="say SIGTERM, SIGQUIT, SIGINT …")


def _dial(family: socket.AddressFamily, address: str, port: int, timeout: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout)
    try:
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _command_ended(running: Running, pid_file: Path, deadline: float) -> bool:
    """Wait until the command, or the runtime that started it, has ended; did it before the deadline?"""
    pause = 0.005
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return ends(int(pid_file.read_text()), left)
        if wait(running, min(pause, left)):
            return True
        pause = min(pause * 1.5, 0.05)
    return False


def started(running: Running, pid_file: Path, ended: Callable[[], str], *, within: float) -> int:
    """Wait until the runtime has started the container; its first process on the machine.

    Raises SmokeError `not-started` with what `ended()` says.
    """
    deadline = time.monotonic() + within
    pause = 0.002
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(pid_file.read_text())
        if wait(running, pause):
            with contextlib.suppress(FileNotFoundError, ValueError):
                return int(pid_file.read_text())
            break
        pause = min(pause * 1.5, 0.05)
    raise SmokeError(
        "not-started",
        f"the image could not be started: {ended()}",
        hint="is the entrypoint in the image and executable, with its interpreter?",
    )
