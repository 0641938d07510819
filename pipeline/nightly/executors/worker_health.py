"""Track which cluster workers failed or fell silent, and so get no tasks.

Workers get tasks unless they failed one for what their machine lacks, or stopped responding.

A worker whose machine is at fault (no control groups, a full store, a broken disk) fails a task sooner than others end
one, so it would draw one task after the other. A fault suspends its worker at once, and the task is tried on another.
If it ends there, however it ends, the fault was the machine's: the worker is set aside for the night. If it fails for
what machines lack wherever it is tried, the cause lies elsewhere, and its workers get tasks again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import ExcludedWorker

TRIED_WORKERS_LIMIT = 3
"""Workers on which a task is tried, if all fail it for what their machines lack. A cause that three share lies
elsewhere: a registry that is down, a key that no worker can read."""

SILENCE_TIMEOUT = 300.0
"""Seconds without a heartbeat after which a worker is given up, and its task started elsewhere. Workers send heartbeats
every few seconds; five minutes outlast a restart of a switch. docs/cluster.md says the same."""


@dataclass(slots=True)
class WorkerHealth:
    """The health of each worker, by its name. `silence` is in seconds."""

    silence: float = SILENCE_TIMEOUT
    _suspended: dict[str, str] = field(default_factory=dict)
    _faulty: dict[str, str] = field(default_factory=dict)
    _silent: dict[str, str] = field(default_factory=dict)
    _heartbeats: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """The workers that get no more tasks, and why."""
        return tuple(ExcludedWorker(name, why) for name, why in sorted({**self._silent, **self._faulty}.items()))

    def fault(self, worker: str, why: str) -> None:
        """Suspend a worker that failed a task for what its machine lacks."""
        self._suspended[worker] = why

    def exclude(self, faults: Mapping[str, str]) -> None:
        """Exclude workers (by name, with the reason) that failed a task that another has done."""
        for worker, why in faults.items():
            self._suspended.pop(worker, None)
            self._faulty.setdefault(worker, why)

    def reinstate(self, workers: Collection[str]) -> None:
        """End the suspension of workers whose fault has its cause elsewhere."""
        for worker in workers:
            self._suspended.pop(worker, None)

    def look(self, seen: Mapping[str, float], now: float) -> tuple[str, ...]:
        """Record when the scheduler last received each worker's heartbeat.

        `seen` has times of any clock that only the scheduler reads, `now` is the time of this process's clock. Returns
        the workers that have fallen silent since the last look.
        """
        fallen = []
        for worker, beat in seen.items():
            known = self._heartbeats.get(worker)
            if known is None or known[0] != beat:
                self._heartbeats[worker] = (beat, now)
                self._silent.pop(worker, None)
            elif now - known[1] >= self.silence and worker not in self._silent:
                self._silent[worker] = f"no heartbeat for {self.silence:.0f} s"
                fallen.append(worker)
        for worker in self._heartbeats.keys() - seen.keys():  # It left; if it returns, it has a new name.
            del self._heartbeats[worker]
        return tuple(fallen)

    def usable(self, able: Collection[str], tried: Collection[str]) -> tuple[str, ...]:
        """Return the workers, of those that are `able` to do a task, that it may be given to.

        Sorted: none of those that it was `tried` on, and suspended ones only where there is no other.
        """
        left = [one for one in able if one not in tried and one not in self._faulty and one not in self._silent]
        return tuple(sorted([one for one in left if one not in self._suspended] or left))
