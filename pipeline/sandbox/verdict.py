"""What became of an instance, in words: which of its limits it ran into."""

from __future__ import annotations

import signal

from pipeline.sandbox.usage import Usage

_HELD_BACK = 0.25
"""Of its processor time: an instance that waited that much for its share was short of it."""


def what_happened(usage: Usage, exit_code: int | None) -> str:
    """A sentence for people: `killed for want of memory; /data is full (bytes)`. Empty when it ran into nothing
    and was not ended by a signal."""
    found = []
    if usage.oom_kills:
        found.append("killed for want of memory" + _times(usage.oom_kills))
    if usage.pids_refused:
        found.append("refused processes" + _times(usage.pids_refused))
    for place in usage.full:
        path, _, kind = place.partition(" ")
        found.append(f"{path} is full {kind}".rstrip())
    if usage.output_dropped:
        found.append(f"printed {usage.output_dropped} bytes more than are kept")
    if usage.throttled_time and usage.cpu_time and usage.throttled_time >= usage.cpu_time * _HELD_BACK:
        found.append(f"held to its share of the processors for {usage.throttled_time / 1e6:.1f} s")
    if exit_code is not None and exit_code > 128 and not usage.oom_kills:
        found.append(f"ended by {_signal(exit_code - 128)}")
    return "; ".join(found)


def _times(count: int) -> str:
    return "" if count == 1 else f" {count} times"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
