"""Choose the workers for a task: machines of its architecture, else those that emulate it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import ExcludedWorker
from pipeline.nightly.executors.dask.dask_resources import can_run, resources_text
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.executors.worker_health import WorkerHealth

_NAMED = 5
"""Workers that a message names at most."""

WorkerResources = Mapping[str, Mapping[str, float]]
"""The Dask resources that workers offer, by the workers' names."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The workers that a task may be given to, sorted.

    `emulated`: they emulate its architecture. `able` are all that offer what it needs in this way: those that it was
    tried on, and those that get no more tasks, are among them.
    """

    usable: tuple[str, ...]
    able: frozenset[str]
    emulated: bool = False

    @property
    def restricted_to(self) -> tuple[str, ...]:
        """The workers that Dask is to choose from; empty for any, also one that joins later."""
        return self.usable if set(self.usable) != self.able else ()

    def outdates(self, given: Placement) -> bool:
        """Return whether a task that waits where it was `given` should wait here instead.

        All workers that it was restricted to have left, or it waits for an emulator although there is a machine of its
        architecture by now, or the other way round.
        """
        left = bool(given.restricted_to) and not self.able & set(given.restricted_to)
        return left or given.emulated != self.emulated


def place_task(
    workers: WorkerResources, requirements: Requirements, health: WorkerHealth, tried: Collection[str]
) -> Placement:
    """Return where a task may run, on none of the workers that it was `tried` on.

    A worker that runs its architecture by itself is preferred, also one that is busy: an emulator takes ten times as
    long. A worker that emulates it is taken only where there is none of those.
    """

    def placement(*, emulated: bool) -> Placement:
        able = [name for name, offer in workers.items() if can_run(offer, requirements, emulated=emulated)]
        return Placement(health.usable(able, tried), frozenset(able), emulated)

    native = placement(emulated=False)
    if native.usable or not requirements.arch:
        return native
    foreign = placement(emulated=True)
    return foreign if foreign.usable else native


def lacking_text(workers: WorkerResources, requirements: Requirements, excluded: Sequence[ExcludedWorker]) -> str:
    """Return the reason why no worker can do a task with these requirements, in words."""
    want = [requirements.arch] if requirements.arch else []
    if requirements.containers:
        want.append("containers")
    if requirements.memory:
        want.append(f"{requirements.memory / 2**20:.0f} MiB of memory")
    aside = {one.worker: one.why for one in excluded}
    have = [
        f"{name} is excluded: {aside[name]}" if name in aside else f"{name} has {resources_text(resources)}"
        for name, resources in sorted(workers.items())
    ]
    more = f"; and {len(have) - _NAMED} more" if len(have) > _NAMED else ""
    wanted = ", ".join(want) or "this version of relbuild"
    return f"no worker of the cluster offers {wanted}: {'; '.join(have[:_NAMED]) or 'no workers'}{more}"


def lacking_hint(requirements: Requirements) -> str:
    """Return the way out where no worker can do a task with these requirements."""
    if not requirements.arch:
        return "start `relbuild worker` on a machine that has what is wanted"
    return (
        f"start `relbuild worker` on a machine for {requirements.arch}, or on one with an emulator for it "
        "(docs/architectures.md)"
    )
