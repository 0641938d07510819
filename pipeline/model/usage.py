"""Data class for the resources that an instance used, as the kernel tells."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, microseconds, counts; None where the kernel does not tell.

    `io_read` and `io_written` are bytes read from disks and written to them; on cgroup v1 only of its volumes, and
    without what the kernel writes back later. `network_in` and `network_out` are bytes on the
    wire. `full` are places that have no room left, as `/tmp (bytes)` or `/data (inodes)`; `output_dropped` bytes
    that were printed beyond what is kept. `counted` are counts of overruns, by figure, that have no field of their own.
    """

    peak_memory: int | None
    cpu_time: int | None
    throttled_time: int | None
    peak_pids: int | None
    oom_kills: int | None
    pids_refused: int | None = None
    io_read: int | None = None
    io_written: int | None = None
    network_in: int | None = None
    network_out: int | None = None
    full: tuple[str, ...] = ()
    output_dropped: int = 0
    counted: tuple[tuple[str, int], ...] = ()
