"""The shell of `run --shell`: a process of this machine that enters the instance.

It is on a new terminal, or on pipes where standard input is no terminal, so that its processes cannot access the
person's. On pipes the end of standard input ends the shell, which a terminal cannot pass on reliably.
"""

from __future__ import annotations

import contextlib
import os

from pipeline import process
from pipeline.cli.attached_streams import CopiedStreams, piped_streams, terminal_streams
from pipeline.cli.messages import print_lines
from pipeline.cli.stop_request import StopRequest
from pipeline.launch import enter_command, shell_of
from pipeline.sandbox import Instance

_POLL_INTERVAL = 0.2
"""Seconds between checks whether the instance is to stop."""


def run_shell(instance: Instance, stopping: StopRequest) -> CopiedStreams:
    """Run a shell in the instance until it ends; it is killed when the instance is to stop.

    Returns its streams, which are to be finished after the instance has ended: what the shell has left there may have
    its pipes. Raises EnvironmentLacking `program-missing`, OSError if a terminal's output cannot be written.
    """
    if shell_of(instance) is None:
        print_lines(
            "the image has no shell; this is a shell of this machine in the instance's network and PID namespaces; "
            f"the instance's files are in /proc/{instance.pid}/root"
        )
    if not os.isatty(0):
        streams = piped_streams(stdin=True)
        _run(enter_command(instance), streams, stopping, new_session=True)
        return streams
    with terminal_streams(cooked=True) as streams:
        # The session's leader must make it its terminal: Python cannot where there are threads.
        _run(("setsid", "--ctty", *enter_command(instance)), streams, stopping, new_session=False)
    return streams


def _run(argv: tuple[str, ...], streams: CopiedStreams, stopping: StopRequest, *, new_session: bool) -> None:
    stdin, stdout, stderr = streams.given
    shell = process.start(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        environment={"TERM": os.environ.get("TERM", "dumb"), "HOME": "/"},
        new_session=new_session,
    )
    try:
        streams.started()
        while not stopping.asked.is_set():
            with contextlib.suppress(process.DeadlinePassed):
                shell.wait(_POLL_INTERVAL)
                return
    finally:
        process.kill_group(shell)
        shell.wait()
