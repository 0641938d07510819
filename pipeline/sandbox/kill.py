"""Ending what runs, for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from pipeline.sandbox.cgroups import Cgroup
from pipeline.sandbox.output import RunningCommand, wait_for_exit

_GRACE = 5.0
"""Seconds that a runtime gets to end once all in its container is gone; it takes a few milliseconds."""


def kill_and_wait(running: RunningCommand, group: Cgroup) -> None:
    """Kill everything in `group` and wait for `running`, the runtime that put it there.

    The group is emptied again and again until the runtime has ended: it may have been about to put a process
    there. It is not killed at once, because it tells the exit status and gives its last output on.
    """
    deadline = time.monotonic() + _GRACE
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
