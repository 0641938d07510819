"""Run a worker process of a Dask cluster, and reconnect it to its scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
from collections.abc import Callable

import dask
import distributed
from dask.utils import parse_bytes
from distributed.system import MEMORY_LIMIT

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.nightly.executors.dask.dask_resources import worker_resources
from pipeline.nightly.executors.dask.dask_task import WorkerSettingsPlugin
from pipeline.nightly.executors.executor_protocol import WorkerSettings
from pipeline.processors import whole_processors
from pipeline.progress import Progress

DaskWorker = distributed.Worker
"""Dask's class of workers."""

_PAUSE = 1.0
"""Seconds until a worker that has lost its scheduler connects again."""

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
"""Reasons of a worker's end that mean that its scheduler was lost, or refused it. All others mean that the worker shall
exit."""

_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # It samples 100 times a second; the work is in other processes.
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
    """The resources that a machine offers to a cluster.

    `jobs` tasks at a time (None: one for each processor that it may use), which may want `memory` together, as text
    like `8GiB` ("": all that its control group allows), and may need containers or not. `emulation`: also tasks for
    architectures that the machine emulates.
    """

    jobs: int | None
    memory: str
    containers: bool
    emulation: bool = True

    @property
    def threads(self) -> int:
        """Number of tasks at a time; control groups may allow fewer CPUs than the host has."""
        return self.jobs or whole_processors()

    def resources(self) -> dict[str, float]:
        """Return Dask's resources. Raises UsageError `memory-malformed`."""
        try:
            memory = parse_bytes(self.memory) if self.memory else MEMORY_LIMIT
        except ValueError as error:
            raise UsageError("memory-malformed", str(error), hint="write --memory 8GiB") from error
        return worker_resources(self.threads, memory, containers=self.containers, emulation=self.emulation)


async def configure_worker(worker: DaskWorker, settings: WorkerSettings, *, containers: bool) -> None:
    """Set up a worker of `dask worker`, which has not joined yet, to offer resources for tasks.

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
    connected: Callable[[], None] = lambda: None,
) -> None:
    """Work for the scheduler at `address` (`tcp://HOST:PORT`, `tls://…`) until told to stop.

    It ends at SIGTERM or SIGINT, or when the scheduler retires it. Without a scheduler, also after one was lost, it
    waits for at most `scheduler_timeout` seconds, then raises EnvironmentLacking `no-scheduler`. `connected` is called
    each time when it has joined a scheduler.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(_SETTINGS):
        workers = _WorkerLoop(address, settings, capacity, progress, scheduler_timeout, connected)
        asyncio.run(workers.run_until_stopped())


@dataclass(slots=True)
class _WorkerLoop:
    address: str
    settings: WorkerSettings
    capacity: WorkerCapacity
    progress: Progress
    scheduler_timeout: float | None
    connected: Callable[[], None]

    async def run_until_stopped(self) -> None:
        """Run one worker after the other, each until its scheduler is lost."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        while not stop.is_set():
            worker = _Worker(
                self.address,
                nthreads=self.capacity.threads,
                name=self.settings.worker,
                resources=self.capacity.resources(),
                memory_limit=0,  # Of this process. Tasks' memory is a Dask resource.
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
        """Run a worker until `stop` is set or it ends; return the reason."""
        life, stopping = asyncio.create_task(_live(worker, self.connected)), asyncio.create_task(stop.wait())
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


async def _live(worker: DaskWorker, connected: Callable[[], None]) -> None:
    await worker
    connected()
    await worker.finished()
