"""A task on its way to another machine, and how it is done there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from pipeline.model.absolute_path import absolute, refuse_relative
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, TaskFunction, WorkerSettings
from pipeline.nightly.executors.task_inputs import pack_files, unpack_files
from pipeline.progress import Progress
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class TaskPayload:
    """A task as it is sent: the pickled (function, work), and the packed files that it reads.

    It is pickled so that the scheduler, which unpickles what it hands on, need not know what a night is.
    """

    # Not in `repr`: a worker of Dask's writes the arguments of a task that raised into its log.
    work: bytes = field(repr=False)
    files: bytes = field(repr=False)

    @classmethod
    def of(cls, function: TaskFunction, work: object, files: Iterable[Path]) -> Self:
        """Pickle (function, work), and pack the files.

        Raises UsageError `files-too-large`, and `path-relative` where the work holds a relative path.
        """
        refuse_relative(work)
        return cls(pickle.dumps((function, work)), pack_files(files))


@dataclass(frozen=True, slots=True)
class PlacedPayload:
    """A task's payload at the place where it is done."""

    settings: WorkerSettings
    payload: TaskPayload


def run_payload(work: object, progress: Progress) -> object:
    """Run a payload at its place, in a process that does nothing else: a `TaskFunction`."""
    assert isinstance(work, PlacedPayload)
    settings, payload = work.settings, work.payload
    with Store.open(settings.store).temporary("files") as files:
        unpack_files(payload.files, files)
        # No path of the work begins at this folder. What a program beneath writes to its own goes with the task.
        os.chdir(files)
        CURRENT_WORKER.set(replace(settings, files=absolute(files)))
        function, inner = pickle.loads(payload.work)  # noqa: S301 - of the same relbuild: its worker has made sure
        try:
            return function(inner, progress)
        finally:
            os.chdir("/")
