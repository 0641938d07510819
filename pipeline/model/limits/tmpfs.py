"""The `tmpfs` limit: size of each scratch file system, in bytes."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.limit import (
    PAGE_SIZE,
    AsFileSystem,
    Limit,
    LimitReading,
    Observed,
    compare_reading,
    no_overruns,
)
from pipeline.model.quantities import SIZE


def inodes_of(size: int) -> int:
    """Return the number of files that a tmpfs of `size` bytes may hold.

    An empty one costs no bytes of it, but a kilobyte of the kernel's memory.
    """
    return max(1024, size // 16384)


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    scratch = observed.scratch
    size, inodes = (scratch.size, scratch.inodes) if scratch is not None else (None, None)
    other = "the kernel set another size"
    yield compare_reading("tmpfs", asked, size, slack=PAGE_SIZE, why=other)
    yield compare_reading("tmpfs_inodes", inodes_of(asked), inodes, slack=0, why=other)


LIMIT: Limit[int] = Limit(
    name="tmpfs",
    rank=60,
    meaning="size of each scratch file system",
    example="64MiB",
    form=SIZE,
    default=64 << 20,
    kernel="`size` and `nr_inodes` of each tmpfs",
    set_by=AsFileSystem(),
    read=_read,
    overruns=no_overruns,
    slack=PAGE_SIZE,
)
