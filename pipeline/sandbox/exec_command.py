"""Command line, control group and files with which a runtime runs a command in an instance."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.cgroups import Cgroup
from pipeline.sandbox.output import RunningCommand, wait_for_exit
from pipeline.sandbox.runtime import Runtime, last_message
from pipeline.sandbox.runtime_bundle import ProcessPlan, process_spec
from pipeline.sandbox.sandbox_registry import SandboxSlot


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """A command line of `runc exec`, made by `prepare_exec`.

    `group` has exactly the processes that the command starts. `pid_file` exists once the command was started.
    """

    words: Sequence[str | Path]
    group: Cgroup
    pid_file: Path
    log: Path
    spec: Path

    @property
    def refusal(self) -> str:
        """The runtime's reason why the command was not started, or ""."""
        return last_message(self.log)

    def remove_files(self) -> None:
        """Remove the files that the runtime was given, and its log."""
        for file in (self.spec, self.log, self.pid_file):
            file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class AttachedCommand:
    """A command in an instance with streams of the caller's, as `Instance.attach` starts it."""

    running: RunningCommand
    command: ExecCommand

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; return its exit status, or None.

        A command that could not be started has status 127.
        """
        if not wait_for_exit(self.running, timeout):
            return None
        return self.running.returncode if self.command.pid_file.exists() else 127

    def resize(self) -> None:
        """Tell the runtime that the size of its terminal changed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running.pid, signal.SIGWINCH)


def prepare_exec(
    runtime: Runtime, slot: SandboxSlot, number: int, plan: ProcessPlan, *, terminal: bool = False
) -> ExecCommand:
    """Write the files for a command in the container of `slot`, and make its control group.

    `number` is not used twice in an instance. `terminal`: the runtime makes a terminal in the container, and copies
    between it and the one that it is started with. Raises FileNotFoundError if the instance has ended.
    """
    name = f"exec{number}"
    folder = slot.folder
    spec, log, pid = (folder / f"{name}.{kind}" for kind in ("json", "log", "pid"))
    # A control group of its own without limits: it contains exactly the processes that this command started.
    tracker = slot.group.tracker
    words: list[str | Path] = [*runtime.command, "--root", folder / "runtime"]
    words += ["--log", log, "--log-format", "json", "exec"]
    if tracker is not None:
        controller, container = tracker
        (container / name).mkdir()
        words += ["--cgroup", f"{controller}:{name}" if controller else name]
    spec.write_text(json.dumps(process_spec(plan, terminal=terminal)))
    words += ["--process", spec, "--pid-file", pid, slot.name]
    return ExecCommand(words, slot.group.below(name), pid, log, spec)
