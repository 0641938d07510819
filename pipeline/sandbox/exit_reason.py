"""Describe for people why an instance ended and which limits it ran into."""

from __future__ import annotations

import signal

from pipeline.model.limit import Overrun, Severity
from pipeline.model.limits import LIMITS
from pipeline.model.usage import Usage


def explain_exit(usage: Usage, exit_code: int | None) -> str:
    """Describe for people how an instance ended and which limits it ran into.

    An example: `killed: out of memory; /data is full (bytes)`. Empty if it ran into no limit and no signal ended it.
    """
    found = [overrun for limit in LIMITS for overrun in limit.overruns(usage)]
    if usage.output_dropped:
        found.append(Overrun(Severity.DROPPED, f"output limit reached, {usage.output_dropped} bytes dropped"))
    found.sort(key=lambda overrun: overrun.severity)
    told = [overrun.text for overrun in found]
    killed = any(overrun.severity is Severity.KILLED for overrun in found)
    if exit_code is not None and exit_code > 128 and not killed:
        told.append(f"killed by {_signal(exit_code - 128)}")
    return "; ".join(told)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
