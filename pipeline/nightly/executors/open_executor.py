"""Choose and open the executor: a Dask cluster's, or that of local processes.

One more kind of cluster is a file or a folder beside this, and a branch in `open_executor`.
"""

from __future__ import annotations

from pipeline.nightly.executors.executor_protocol import Executor
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.processors import whole_processors
from pipeline.progress import Progress


def open_executor(
    scheduler: str | None, progress: Progress, *, jobs: int | None = None, plain_scheduler: bool = False
) -> Executor:
    """Return the executor for the cluster at `scheduler`, or without one for this machine.

    This machine runs `jobs` tasks at a time. None: one for each processor that this process may use, and as many more
    as wait for containers that they test.
    `plain_scheduler` allows a cluster that is reached unencrypted.

    Raises EnvironmentLacking, UsageError for a cluster that cannot be joined.
    """
    if scheduler is None:
        return ProcessExecutor(progress, jobs or whole_processors(), overlap=jobs is None)
    # Here and not above: a plain installation lacks what it needs.
    from pipeline.nightly.executors.dask.dask_executor import DaskExecutor

    return DaskExecutor.join(scheduler, progress, plain=plain_scheduler)
