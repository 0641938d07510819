"""A program whose processes all end with it: those too that it has left, also when it was killed.

It runs in a PID namespace of its own, whose processes the kernel kills with the first one (pid_namespaces(7)). `podman
rm` can fail, and a program that was killed removes nothing: then a container went on, while its files were removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

_PATIENCE = 60.0
"""Seconds in which the program may put away what it has open after a signal."""

_FIRST = 'trap : HUP INT TERM; "$@"; exit $?'
"""The first process of the namespace: it adopts orphans and waits for them, and ends when the program has ended."""

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class _Told(BaseException):
    """A signal that asks to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def supervise(command: Sequence[str]) -> int:
    """Execute a command, end all that it has started, and return its exit status; as root."""
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
    former = {number: signal.signal(number, _tell) for number in _SIGNALS}
    try:
        with subprocess.Popen([*words, "bash", "-c", _FIRST, "first", *command], start_new_session=True) as running:
            try:
                return running.wait()
            except _Told as told:
                # Of its group: a command that it waits for gets the signal as well, as from a terminal.
                os.killpg(running.pid, signal.SIGINT)
                running.wait(_PATIENCE)
                return 128 + told.number
            finally:
                running.kill()
    except subprocess.TimeoutExpired:
        return 128 + signal.SIGKILL
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _tell(number: int, _: object) -> None:
    raise _Told(number)
