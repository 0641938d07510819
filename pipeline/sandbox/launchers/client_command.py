"""Commands that a launcher's client executes in a container, with bounded output."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence

from pipeline import process
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.output import Capture, wait_for_exit

_OUTPUT_LIMIT = 1 << 20
"""Bytes kept of a command's stdout and of its stderr, as of one in relbuild's own sandbox."""


CLIENT_OUTPUT_TIMEOUT = 5.0
"""Seconds to read what a client that has ended left in its pipe, at most 1 MiB: more than a busy machine needs.

Longer takes only a pipe that another process keeps open, such as a daemon that kubectl's credential plugin started.
"""


@dataclass(frozen=True, slots=True)
class ClientResult:
    """The result of a client's command that has ended.

    `took` is seconds; of what it printed, the beginning is kept. `stdout_dropped` and `stderr_dropped` are the bytes
    beyond the limit.
    """

    status: int
    stdout: bytes
    stderr: bytes
    took: float
    timed_out: bool
    stdout_dropped: int
    stderr_dropped: int


def run_client(command: Sequence[str], *, stdin: bytes, timeout: float) -> ClientResult:
    """Run a client's command until it ends, or for `timeout` seconds.

    Output beyond the limit is read and dropped, and none of it takes room on a disk.
    """
    begun = time.monotonic()
    uid, gid = os.geteuid(), os.getegid()
    with (
        tempfile.TemporaryFile() as source,
        Capture(_OUTPUT_LIMIT, uid=uid, gid=gid, last=CLIENT_OUTPUT_TIMEOUT) as out,
        Capture(_OUTPUT_LIMIT, uid=uid, gid=gid, last=CLIENT_OUTPUT_TIMEOUT) as err,
    ):
        source.write(stdin)
        source.seek(0)
        running = process.start(command, stdin=source, stdout=out.write_end, stderr=err.write_end)
        out.started()
        err.started()
        try:
            timed_out = not wait_for_exit(running, timeout)
        finally:
            end_client(running)
    took = time.monotonic() - begun
    return ClientResult(running.returncode, out.kept, err.kept, took, timed_out, out.dropped, err.dropped)


def end_client(running: process.Process) -> None:
    """Kill a client's command that still runs, and wait for its end."""
    if running.poll() is None:
        process.kill_group(running)
    running.wait()
