"""The `open_files` limit: open files of each process."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import (
    AsRlimit,
    Limit,
    LimitReading,
    Observed,
    compare_reading,
    no_overruns,
)
from pipeline.model.quantities import WholeNumber

_UNASKED = 65536
"""Descriptors per process where the recipe does not say: enough for a server, and the same everywhere."""


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    read = observed.resource_limit("Max open files")
    yield compare_reading("open_files", asked, read, slack=0, why="see `ulimit -Hn`")


LIMIT: Limit[int | None] = Limit(
    name="open_files",
    rank=50,
    meaning="open files of each process",
    example=1024,
    form=WholeNumber(16, 1 << 20),
    default=None,
    kernel="`RLIMIT_NOFILE` (getrlimit(2))",
    set_by=AsRlimit("RLIMIT_NOFILE", unasked=_UNASKED),
    read=_read,
    overruns=no_overruns,
)
