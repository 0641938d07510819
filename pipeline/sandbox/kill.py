"""Kill all processes of a container and wait until its runtime has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from pipeline.sandbox.cgroups import Cgroup
from pipeline.sandbox.output import RunningCommand, wait_for_exit

_RUNTIME_EXIT_TIMEOUT = 5.0
"""Seconds that a runtime gets to exit once its container has no processes; it takes a few milliseconds."""


def kill_and_wait(running: RunningCommand, group: Cgroup) -> None:
    """Kill all processes in `group` and wait for `running`, the runtime that started them.

    The group is killed repeatedly until the runtime has ended, which may be about to start a process. The runtime is
    not killed at once, because it returns the exit status and copies the last output.
    """
    deadline = time.monotonic() + _RUNTIME_EXIT_TIMEOUT
    while True:
        group.kill()
        if wait_for_exit(running, 0.02):
            break
        if time.monotonic() > deadline:
            # `process.start` gave it a session of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            break
    group.kill()
