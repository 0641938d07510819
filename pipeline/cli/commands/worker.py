"""The `worker` command: join a Dask cluster and do tasks of others' nightly runs.

Also the preload module of `dask worker`, for the same.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.path_arguments import require_output
from pipeline.cli.progress_display import ProgressStyle
from pipeline.model.absolute_path import absolute
from pipeline.nightly.executors.executor_protocol import WorkerSettings
from pipeline.progress import QUIET, Progress
from pipeline.sandbox import check_host

if TYPE_CHECKING:
    from pipeline.nightly.executors.dask.dask_worker import DaskWorker

_REQUIRED_PURPOSES = ("every sandbox", "scriptlets and smoke tests", "unpacking and mounting layers")
"""Purposes of `doctor`'s findings without which no container can run. Limits may be missing: a recipe that demands them
fails then."""


@command(rank=230, reads_repositories=True, in_user_namespace=True, json=False, progress=ProgressStyle.PLAIN)
def worker_command(
    context: CommandContext,
    *,
    address: Annotated[
        str, typer.Argument(help="The cluster's scheduler: tcp://HOST:PORT or tls://HOST:PORT.", show_default=False)
    ],
    jobs: Annotated[
        int | None, typer.Option("--jobs", "--nthreads", min=1, help="Tasks at a time (default: processors).")
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", "--memory-limit", help="Memory for all tasks together (default: the machine's).")
    ] = "",
    scheduler_timeout: Annotated[
        float | None,
        typer.Option(
            "--death-timeout", help="Seconds without a scheduler after which the worker exits (default: never)."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The worker's name (default: the host's name).")] = None,
    emulation: Annotated[
        bool,
        typer.Option(
            "--emulation/--no-emulation",
            help="Also take tasks for architectures that this machine only emulates, where no other worker can.",
        ),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", help="Output folder of layouts and reports (default: below the store).")
    ] = None,
) -> int:
    """Join the cluster of a night, and work for it.

    It works for `relbuild nightly --scheduler`, and stays until SIGTERM.

    A scheduler that is not there, or no more, is waited for. Options have Dask's names too, so that what starts
    `dask worker` can start this.
    """
    # Here and not above: a plain installation lacks what it needs.
    from pipeline.nightly.executors.dask.dask_worker import WorkerCapacity, run_dask_worker

    mine = absolute(context.open_store().root)
    place = WorkerSettings(
        mine, absolute(require_output(output) if output else mine / "nightly"), name or socket.gethostname()
    )
    capacity = WorkerCapacity(jobs, memory, _containers(mine, context.progress), emulation)
    joined = f"worker {place.worker} connected to {address}: {capacity.threads} tasks at a time, store {mine}"
    print_lines(f"worker {place.worker} looks for a scheduler at {address}")
    run_dask_worker(
        address,
        place,
        capacity,
        context.progress,
        scheduler_timeout=scheduler_timeout,
        connected=lambda: print_lines(joined),
    )
    return 0


async def dask_setup(worker: DaskWorker) -> None:
    """Set up a worker of `dask worker` to do tasks of nights, as `relbuild worker` does.

    `dask worker … --no-nanny --preload pipeline.cli.commands.worker`: a worker of Dask's own does the same, with the
    user's own store, and as many tasks at a time as it has threads.
    """
    from pipeline.nightly.executors.dask.dask_worker import configure_worker

    mine = absolute(CommandContext(QUIET).open_store().root)
    place = WorkerSettings(mine, absolute(mine / "nightly"), str(worker.name))
    await configure_worker(worker, place, containers=_containers(mine, QUIET))


def _containers(store: Path, progress: Progress) -> bool:
    missing = [f for f in check_host(store) if not f.ok and f.needed_for in _REQUIRED_PURPOSES]
    for finding in missing:
        progress.warn(f"this worker runs no containers: {finding.name}: {finding.detail}")
    return not missing
