"""A container in which a build session runs a command, and the command's result."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.cgroups import Cgroup
from pipeline.sandbox.kill import kill_and_wait
from pipeline.sandbox.output import RunningCommand
from pipeline.sandbox.runtime import last_message


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command that has ended.

    `status` is its exit status, 128 + n when signal n ended it. `dropped` are the bytes of output beyond the limit,
    `stderr_dropped` those of them that went to stderr, where the two are kept apart. `took` is seconds.
    `pids_refused`: the kernel refused it a process beyond the limit of their number.
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
    stderr_dropped: int = 0

    @property
    def ok(self) -> bool:
        """True if it ended by itself, with status 0, within its memory, and the disk is not full."""
        return self.status == 0 and not (self.timed_out or self.out_of_memory or self.out_of_disk)

    @property
    def too_large(self) -> bool:
        """True if its status is that of a command killed for writing beyond a file's limit."""
        return self.status == 128 + signal.SIGXFSZ


@dataclass(frozen=True, slots=True)
class CommandContainer:
    """A container that `running`, its runtime, was told to start.

    `bundle` and `state` are the runtime's folders for it; the runtime writes the PID of its first process on the host
    into `pid_file`.
    """

    running: RunningCommand
    group: Cgroup
    bundle: Path
    state: Path
    pid_file: Path
    log: Path

    @property
    def started(self) -> bool:
        """True once its first process was started."""
        return self.pid_file.exists()

    @property
    def pid(self) -> int:
        """PID of its first process on the host."""
        return int(self.pid_file.read_text())

    @property
    def reason(self) -> str:
        """The runtime's last error, or ""."""
        return last_message(self.log)

    def end(self) -> None:
        """Kill its processes, wait for the runtime's end and remove its control group.

        Also when its command has ended by itself: a runtime that was killed leaves processes running.
        """
        kill_and_wait(self.running, self.group)
        self.group.remove()

    def remove_files(self) -> None:
        """Remove the runtime's files about it, once it has ended."""
        for file in (self.pid_file, self.log):
            file.unlink(missing_ok=True)
        for folder in (self.bundle, self.state):
            shutil.rmtree(folder, ignore_errors=True)
