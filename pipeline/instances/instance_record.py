"""The record of an instance, a file in its folder, and the state that follows from it."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import LimitReading
from pipeline.model.published_port import PublishedPort


class InstancePhase(StrEnum):
    """The last phase that an instance's supervisor recorded."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class InstanceState(StrEnum):
    """The state of an instance. `DEAD`: its supervisor ended without recording an exit code."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """An instance, its image and its settings, as its supervisor wrote them.

    `subject` is the recipe, layout or reference that was run. `started` and `ended` are milliseconds since the epoch.
    `limits` are those that were asked for, as read back. `changes` say what differs from the image's tested
    configuration. `stop_within` is milliseconds between stop signal and kill.
    """

    name: str
    product: str
    version: str
    digest: Digest
    subject: str
    started: int
    detached: bool
    phase: InstancePhase = InstancePhase.STARTING
    exit_code: int | None = None
    ended: int | None = None
    address: str = ""
    ports: tuple[PublishedPort, ...] = ()
    limits: tuple[LimitReading, ...] = ()
    changes: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_within: int = 10_000


def instance_state(record: InstanceRecord, *, supervised: bool) -> InstanceState:
    """Return the state of an instance. `supervised`: a process holds its folder's lock."""
    match record.phase:
        case InstancePhase.EXITED:
            return InstanceState.EXITED
        case InstancePhase.RUNNING:
            return InstanceState.RUNNING if supervised else InstanceState.DEAD
        case InstancePhase.STARTING:
            return InstanceState.STARTING if supervised else InstanceState.DEAD
        case other:
            assert_never(other)
