"""The `volume` limit: size of each volume, in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.model.limit import AsFileSystem, Limit, LimitReading, Observed, Overrun, Severity
from pipeline.model.quantities import VOLUME
from pipeline.model.usage import Usage


def _read(asked: int, observed: Observed) -> Iterator[LimitReading]:
    """Compare the size of each volume; the file system's own tables make it less than asked for."""
    for space in observed.volumes:
        name = f"volume {space.path}"
        if space.size is None:
            yield LimitReading(name, asked, None, False, space.why)
        else:
            fits = space.size <= asked
            yield LimitReading(name, asked, space.size, fits, "" if fits else "it was created with a larger size")


def _overruns(usage: Usage) -> Sequence[Overrun]:
    """Places that are full, volumes and scratch file systems alike."""
    found = []
    for place in usage.full:
        path, _, kind = place.partition(" ")
        found.append(Overrun(Severity.FULL, f"{path} is full {kind}".rstrip()))
    return found


LIMIT: Limit[int] = Limit(
    name="volume",
    rank=70,
    meaning="size of each volume",
    example="4GiB",
    form=VOLUME,
    default=4 << 30,
    kernel="an ext4 file system of that size on a loop device",
    set_by=AsFileSystem(),
    read=_read,
    overruns=_overruns,
)
