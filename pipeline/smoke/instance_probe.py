"""Implementation of `Probe` for a running instance: run commands, read files, ask sockets."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence, Sized
from typing import TypeVar

from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import Image
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.probe import (
    Executed,
    FileStatus,
    HttpReply,
    InstanceFiles,
    ListeningSocket,
    RunningProcess,
    StoppedInstance,
    Unanswered,
)
from pipeline.model.rpm_database import database_paths
from pipeline.model.value_comparison import SHOWN_LIMIT
from pipeline.model.value_rules import Rule
from pipeline.packages import DATABASE_LIMIT, Installed, read_all_installed, require_database_size
from pipeline.sandbox import LaunchedInstance, RootFs, find_emulator
from pipeline.smoke.log_lines import explaining_line
from pipeline.smoke.network_probes import probe_http, probe_stream
from pipeline.smoke.procfs import list_listeners, list_processes, open_root

_ENDED = "the instance has ended"

_NOT_EXECUTED = 125
"""The least status of a command that a runtime or container engine did not execute, or that a signal ended."""

_END_TOLD = 0.5
"""Seconds until an ended instance is known to have ended: a runtime removes its control group first, and an engine's
client ends last."""

_FoundT = TypeVar("_FoundT", bound=Sized)


@contextlib.contextmanager
def _unanswered_errors() -> Iterator[None]:
    """Raise errors of the operating system, and relbuild's, as Unanswered."""
    try:
        yield
    except OSError as error:
        # Reading /proc of a process that is ending fails in many ways: ESRCH, ENOENT, EINVAL, EACCES.
        raise Unanswered(f"the instance is gone: {error.strerror or error}") from error
    except RelbuildError as error:
        raise Unanswered(str(error)) from error


def describe_exit(instance: LaunchedInstance) -> str:
    """Describe how an instance ended: its exit code, the kernel's reason, its last output.

    The reason is given if the kernel ended it.
    """
    # `wait` also waits for the last output: the exit may be noticed before all of the log is read.
    code, killed = instance.wait(0), instance.usage().oom_kills
    why = ""
    if killed and code == 137:
        limit = instance.limits[MEMORY]
        why = f" (killed: out of memory{f', limit {limit / (1 << 20):g} MiB' if limit else ''})"
    return f"exit code {code}{why}; {describe_log(instance.log)}"


def describe_log(log: bytes) -> str:
    """Return the first line of a log that may explain a failure, or else its last lines."""
    lines = log.decode(errors="replace").strip().splitlines()
    found = explaining_line(lines)
    if found is not None:
        return f"the log says: {lines[found].strip()[:SHOWN_LIMIT]}"
    return f"last log lines: {_last_lines(log) or 'none'}"


def _last_lines(log: bytes) -> str:
    """Return the end of a log, from the beginning of a line if there is one in it."""
    end = log[-SHOWN_LIMIT:]
    if len(log) > SHOWN_LIMIT and log[-SHOWN_LIMIT - 1 : -SHOWN_LIMIT] != b"\n" and b"\n" in end.rstrip():
        end = end[end.index(b"\n") + 1 :]
    return end.decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class _Files:
    root: RootFs

    def status(self, path: str, *, follow: bool = True) -> FileStatus | None:
        with _unanswered_errors():
            found = self.root.stat(path, follow=follow)
        if found is None:
            return None
        shift = self.root.shift
        return FileStatus(found.st_mode, found.st_uid - shift, found.st_gid - shift, found.st_size)

    def read(self, path: str, *, limit: int) -> bytes | None:
        with _unanswered_errors():
            return self.root.read(path, limit=limit)

    def link(self, path: str) -> bytes | str | None:
        folder, _, name = path.rstrip("/").rpartition("/")
        with _unanswered_errors(), self.root.folder(folder or "/") as handle:
            try:
                return os.readlink(name, dir_fd=handle)
            except OSError:
                return None

    def names(self, folder: str) -> Sequence[str] | None:
        try:
            with self.root.folder(folder) as handle, os.scandir(f"/proc/self/fd/{handle}") as entries:
                return sorted(entry.name for entry in entries)
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class InstanceProbe:
    """A `Probe` of an instance of an image.

    `address` is where its ports are; None: the instance's loopback.
    """

    instance: LaunchedInstance
    image: Image
    address: str | None = None

    @property
    def log(self) -> bytes:
        """As `Probe` says."""
        return self.instance.log

    @property
    def log_dropped(self) -> int:
        """As `Probe` says."""
        return self.instance.log_dropped

    @property
    def files(self) -> InstanceFiles:
        """As `Probe` says."""
        return _Files(self.instance.files)

    @contextlib.contextmanager
    def root(self) -> Iterator[InstanceFiles]:
        """As `Probe` says."""
        with contextlib.ExitStack() as closing:
            with _unanswered_errors():
                opened = closing.enter_context(open_root(self.instance))
            yield _Files(opened)

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, deadline: float) -> Executed:
        """As `Probe` says."""
        self._require_alive()
        timeout = max(0.001, deadline - time.monotonic())
        try:
            outcome = self.instance.execute(argv, stdin=stdin, user=user, timeout=timeout)
        except ProcessLookupError as error:
            raise Unanswered(str(error)) from error
        # The end of an instance ends the command too, or leaves it unstarted. Either has a status that says nothing of
        # the command, and is told before the end is.
        if outcome.status >= _NOT_EXECUTED:
            self.instance.wait(_END_TOLD)
        self._require_alive()
        status = None if outcome.timed_out else outcome.status
        dropped = outcome.dropped - outcome.stderr_dropped, outcome.stderr_dropped
        return Executed(status, outcome.stdout, outcome.stderr, *dropped)

    def converse(self, port: int, socket: str, send: bytes, rules: Sequence[Rule], deadline: float) -> bytes:
        """As `Probe` says."""
        return probe_stream(
            self.instance, self.address, port=port, path=socket, send=send, rules=rules, deadline=deadline
        )

    def request(self, request_: HttpRequest, deadline: float) -> HttpReply:
        """As `Probe` says."""
        return probe_http(self.instance, self.address, request_, deadline)

    def process_count(self) -> int:
        """As `Probe` says."""
        with _unanswered_errors():
            return len(self._running(self.instance.processes()))

    def processes(self) -> tuple[RunningProcess, ...]:
        """As `Probe` says."""
        with _unanswered_errors():
            return self._running(list_processes(self.instance, find_emulator(self.image.config.architecture)))

    def listeners(self) -> tuple[ListeningSocket, ...]:
        """As `Probe` says."""
        with _unanswered_errors():
            return list_listeners(self.instance)

    def user_number(self, user: str) -> int:
        """As `Probe` says."""
        with _unanswered_errors():
            return self.instance.identity(user).uid

    def installed(self) -> tuple[Installed, ...] | None:
        """As `Probe` says."""
        with _unanswered_errors():
            found: dict[str, bytes] = {}
            for path in database_paths(dict(self.image.config.labels)):
                data = self.instance.files.read(path, limit=DATABASE_LIMIT)
                if data is not None and data not in found.values():
                    found[path] = data
                    require_database_size(sum(len(one) for one in found.values()), path)
            return read_all_installed(found) if found else None

    def stop(self, signal: str, within: float) -> StoppedInstance:
        """As `Probe` says."""
        if not self.instance.alive:
            raise Unanswered(f"the instance had already ended with {describe_exit(self.instance)}")
        code = self.instance.stop(signal, within)
        return StoppedInstance(code, _last_lines(self.instance.log))

    def _require_alive(self) -> None:
        if not self.instance.alive:
            raise Unanswered(_ENDED)

    def _running(self, processes: _FoundT) -> _FoundT:
        """Return the processes of an instance that runs.

        Raises Unanswered if there is none, as the first one runs as long as an instance does.
        """
        if not processes:
            raise Unanswered(_ENDED)
        self._require_alive()
        return processes
