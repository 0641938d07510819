"""The process that joins a cluster as a worker, and stays.

It looks for its scheduler again when that was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
from dataclasses import dataclass

import dask
import distributed
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed.system import MEMORY_LIMIT

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.nightly.executors.dask.dask_resources import worker_resources
from pipeline.nightly.executors.dask.dask_task import WorkerSettingsPlugin
from pipeline.nightly.executors.executor_protocol import WorkerSettings
from pipeline.progress import Progress

DaskWorker = distributed.Worker
"""A worker as Dask has it."""

_PAUSE = 1.0
"""Seconds until a worker that has lost its scheduler looks for it again."""

_NOT_STARTED = "not-started"
_LOST = frozenset(
    {
        _NOT_STARTED,
        "scheduler-close",
        "worker-handle-scheduler-connection-broken",
        "worker-heartbeat-error",
        "worker-heartbeat-missing",
    }
)
"""Reasons of a worker's end that say that its scheduler went, or did not let it in. All others say that the worker is
to go."""

_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # It looks a hundred times a second; the work is in other processes.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
}


class _Worker(DaskWorker):
    reason = ""

    async def close(  # type: ignore[override]
        self, timeout: float = 30, executor_wait: bool = True, nanny: bool = True, reason: str = "worker-close"
    ) -> str | None:
        self.reason = self.reason or reason
        return await super().close(timeout=timeout, executor_wait=executor_wait, nanny=nanny, reason=reason)


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """The resources that a machine gives to a cluster.

    `jobs` tasks at a time (None: one for each processor that it may use), which may want `memory` together, as text
    like `8GiB` ("": all that its control group allows), and may need containers or not.
    """

    jobs: int | None
    memory: str
    containers: bool

    @property
    def threads(self) -> int:
        """Tasks at a time. Control groups may allow fewer processors than the machine has."""
        return self.jobs or max(1, CPU_COUNT)

    def resources(self) -> dict[str, float]:
        """As Dask's resources. Raises UsageError `memory-malformed`."""
        try:
            memory = parse_bytes(self.memory) if self.memory else MEMORY_LIMIT
        except ValueError as error:
            raise UsageError("memory-malformed", str(error), hint="write --memory 8GiB") from error
        return worker_resources(self.threads, memory, containers=self.containers)


async def configure_worker(worker: DaskWorker, settings: WorkerSettings, *, containers: bool) -> None:
    """Make a worker of `dask worker`, which has not joined yet, offer what tasks want.

    It offers as many tasks at a time as it has threads. Raises EnvironmentLacking `nanny` in a process that may not
    have children.
    """
    if multiprocessing.current_process().daemon:
        raise EnvironmentLacking(
            "nanny",
            "this worker is a daemonic process of its nanny, so it cannot start processes for tasks",
            hint="start `dask worker` with --no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False",
        )
    capacity = WorkerCapacity(worker.state.nthreads, "", containers).resources()
    worker.state.total_resources.update(capacity)
    worker.state.available_resources.update(capacity)
    await worker.plugin_add(WorkerSettingsPlugin(settings), name=WorkerSettingsPlugin.name)


def run_dask_worker(
    address: str,
    settings: WorkerSettings,
    capacity: WorkerCapacity,
    progress: Progress,
    *,
    scheduler_timeout: float | None = None,
) -> None:
    """Work for the scheduler at `address` (`tcp://HOST:PORT`, `tls://…`) until told to stop.

    It ends at SIGTERM or SIGINT, or when the scheduler says to go. A scheduler that is not there is waited for, also
    one that was, for at most `scheduler_timeout` seconds.

    Raises EnvironmentLacking `no-scheduler` when they have passed.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(_SETTINGS):
        asyncio.run(_WorkerLoop(address, settings, capacity, progress, scheduler_timeout).run_until_stopped())


@dataclass(slots=True)
class _WorkerLoop:
    address: str
    settings: WorkerSettings
    capacity: WorkerCapacity
    progress: Progress
    scheduler_timeout: float | None

    async def run_until_stopped(self) -> None:
        """Be one worker after the other."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        while not stop.is_set():
            worker = _Worker(
                self.address,
                nthreads=self.capacity.threads,
                name=self.settings.worker,
                resources=self.capacity.resources(),
                memory_limit=0,  # Of this process. What tasks want of the machine is what it offers.
                dashboard=False,
                death_timeout=self.scheduler_timeout,
                plugins=(WorkerSettingsPlugin(self.settings),),
            )
            reason = await self._until(stop, worker)
            if stop.is_set() or worker.reason not in _LOST:
                return
            self.progress.warn(f"connection to the scheduler {self.address} lost ({reason}); reconnecting")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), _PAUSE)

    async def _until(self, stop: asyncio.Event, worker: _Worker) -> str:
        """Be that worker until told to stop, or until it ends; why it did."""
        life, stopping = asyncio.create_task(_live(worker)), asyncio.create_task(stop.wait())
        await asyncio.wait({life, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            await worker.close(reason="stopped")
            life.cancel()
        stopping.cancel()
        (ended, _) = await asyncio.gather(life, stopping, return_exceptions=True)
        if isinstance(ended, TimeoutError):
            raise EnvironmentLacking(
                "no-scheduler",
                f"no scheduler answered at {self.address} for {self.scheduler_timeout:.0f} s",
                hint="check that it is running and reachable from this machine",
            )
        if isinstance(ended, Exception):
            worker.reason = _NOT_STARTED
            return str(ended.__cause__ or ended)
        return worker.reason


async def _live(worker: DaskWorker) -> None:
    await worker
    await worker.finished()
