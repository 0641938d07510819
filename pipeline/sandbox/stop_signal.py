"""Signals that stop a container: their names, and whether its first process takes them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import SmokeError

_START = 1.0
"""Seconds after its launch in which a process may still start: what is busy for longer works."""
_PAUSE = 0.01
"""Seconds until a process that may still start is looked at again."""
_RUNTIME_NAME = "runc:["
"""Start of the name of a process in which runc has not started the program yet."""
_FIELDS = ("Name", "State", "NSpid", "SigBlk", "SigCgt", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
"""Fields of a status that are equal as long as a process sleeps."""


def signal_number(text: str) -> int:
    """Parse the name or number of a signal.

    `SIGTERM`, `TERM` or `15` → 15; `SIGRTMIN+3` too; empty → SIGTERM (image-spec, StopSignal).

    Raises SmokeError `signal-unknown`.
    """
    name = (text or "SIGTERM").upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if name.isdecimal() and 0 < int(name) < signal.NSIG:
        return int(name)
    found = getattr(signal, f"SIG{base}", None)
    if isinstance(found, signal.Signals) and (not plus or offset.isdecimal()):
        return int(found) + int(offset or 0)
    raise SmokeError(
        "signal-unknown", f"unknown signal: '{text}'", hint="use a signal name such as SIGTERM, SIGQUIT or SIGINT"
    )


def wait_until_taken(pid: int, number: int, launched: float, deadline: float, wait: Callable[[float], object]) -> None:
    """Wait until the first process of a container takes a signal, or until the deadline.

    It also ends when `wait`, which is called with seconds, returns something.

    The kernel drops a signal that the first process of a pid namespace neither handles nor blocks (pid_namespaces(7)),
    and programs do neither when they start. Shells handle signals in their first milliseconds in a way that does not
    end them there. So a process launched (monotonic time) less than a second ago must sleep, too. Returns at once
    where there is no such process, or its state is unknown.
    """
    before = None
    while (left := deadline - time.monotonic()) > 0 and (now := _status(pid)) is not None:
        asleep = now == before and now["State"].startswith("S") and not now["Name"].startswith(_RUNTIME_NAME)
        if (asleep or time.monotonic() - launched > _START) and not _drops(now, number):
            return
        before = now
        if wait(min(_PAUSE, left)) is not None:
            return


def _status(pid: int) -> dict[str, str] | None:
    """Return fields of /proc/PID/status of the first process of a pid namespace, else None."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    told = {name: fields.get(name, "") for name in _FIELDS}
    numbers = told["NSpid"].split()
    return told if len(numbers) > 1 and numbers[-1] == "1" and all(told.values()) else None


def _drops(status: dict[str, str], number: int) -> bool:
    taken = int(status["SigCgt"], 16) | int(status["SigBlk"], 16)
    return number not in {signal.SIGKILL, signal.SIGSTOP} and not taken >> (number - 1) & 1
