"""The settings of a night that a person asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.compression import Compression
from pipeline.mirror.address import Address


@dataclass(frozen=True, slots=True)
class Request:
    """A person's request for a night, as the options of `relbuild nightly` give it.

    `destination` is the mirror as it was typed, `pages` is where the pages go.
    """

    catalogue: tuple[Path, ...]
    to: Address
    destination: str
    key: Path | None
    pages: Path | None
    only: tuple[str, ...]
    labels: tuple[str, ...]
    changed_since: str | None
    containing: tuple[str, ...]
    locked: bool
    write_locks: bool
    jobs: int | None
    scheduler: str | None
    plain_scheduler: bool
    send_env: tuple[str, ...]
    platform: str | None
    architectures: tuple[str, ...]
    repositories: Path | None
    rules: Path | None
    known_as: str
    full: bool
    retest: bool
    compression: Compression
    output: Path
    offline: bool
    runtime: str | None
    store: Path | None

    @property
    def partial(self) -> bool:
        """True if only a part of the catalogue is asked for."""
        return bool(self.only or self.labels or self.containing or self.changed_since is not None)
