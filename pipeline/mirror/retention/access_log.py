"""Read when tags were last pulled from access logs, and add these times to an inventory.

Logs of the web server or registry in the combined format, as nginx, Apache and docker-registry write them.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.retention.pruning import HeldRepository, HeldTag, Inventory

LINE_LIMIT = 16 << 10
"""Bytes of a line that are read: servers refuse longer requests."""

_PULL = re.compile(
    rb"\[(?P<at>\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] "
    rb'"(?:GET|HEAD) /v2/(?P<name>[a-z0-9._/-]+)/manifests/(?P<reference>[A-Za-z0-9._:-]+) HTTP/[0-9.]+" (?:200|304) '
)
_TIME = re.compile(rb'\[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] "')


@dataclass(frozen=True, slots=True)
class Pulls:
    """Pulls in access logs.

    `last`: (repository's name, tag or digest) → time of the last pull; `since`: time of the first line; both in seconds
    since the epoch. `prefix`: the path before repositories' names in the logs.
    """

    last: dict[tuple[str, str], int]
    since: int
    prefix: str = ""

    def of(self, repository: str, tag: HeldTag) -> int:
        """Return the latest time at which a tag may have been pulled, by its name or its digest.

        A tag that is in no log may have been pulled until the logs began.
        """
        name = f"{self.prefix}/{repository}" if self.prefix else repository
        found = [self.last.get((name, reference)) for reference in (tag.name, str(tag.digest))]
        return max((at for at in found if at is not None), default=self.since)


def read_pulls(logs: Sequence[Path], prefix: str = "") -> Pulls:
    """Read access logs, rotated ones (`.gz`) too.

    Raises UsageError `log-unreadable`, and `log-empty` if no line has a time: then no tag would count as pulled.
    """
    last: dict[tuple[str, str], int] = {}
    since: int | None = None
    for path in logs:
        try:
            begun = False
            for line in _lines(path):
                if not begun and (timed := _TIME.search(line)) and (at := _seconds(timed[1])) is not None:
                    since, begun = min(at, since if since is not None else at), True
                pull = _PULL.search(line)
                at = _seconds(pull["at"]) if pull else None
                if pull and at is not None:
                    key = pull["name"].decode(), pull["reference"].decode()
                    last[key] = max(at, last.get(key, at))
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError("log-unreadable", f"{path} cannot be read: {error}", place=str(path)) from error
    if since is None:
        raise UsageError(
            "log-empty",
            "the access logs have no line in the combined log format",
            place=", ".join(map(str, logs)),
            hint="give the logs of the server that clients pull from, including rotated ones",
        )
    return Pulls(last, since, prefix)


def with_pulls(inventory: Inventory, pulls: Pulls | None) -> Inventory:
    """Return the inventory with the time of each tag's last pull; unchanged if `pulls` is None."""
    if pulls is None:
        return inventory
    return replace(inventory, repositories=tuple(_told(one, pulls) for one in inventory.repositories))


def _told(repository: HeldRepository, pulls: Pulls) -> HeldRepository:
    return replace(
        repository,
        tags=tuple(replace(tag, pulled_at=pulls.of(repository.name, tag)) for tag in repository.tags),
    )


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while line := file.readline(LINE_LIMIT):
            yield line


def _seconds(text: bytes) -> int | None:
    try:
        return int(datetime.strptime(text.decode(), "%d/%b/%Y:%H:%M:%S %z").timestamp())
    except (ValueError, OverflowError):
        return None
