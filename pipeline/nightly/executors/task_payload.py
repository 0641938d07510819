"""Payload of a task for another machine: pickled function and work, packed files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from dataclasses import field, replace
from pathlib import Path
from typing import Self

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.absolute_path import absolute, refuse_relative
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, TaskFunction, WorkerSettings
from pipeline.nightly.executors.task_inputs import pack_files, unpack_files
from pipeline.progress import Progress
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class TaskPayload:
    """A task as it is sent: the pickled (function, work), and the packed files that it reads.

    It is pickled to bytes, because the scheduler unpickles task arguments and may lack relbuild's code.
    """

    # Not in `repr`: a Dask worker logs the arguments of a task that raised.
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
    """A task's payload with the settings of the worker that runs it."""

    settings: WorkerSettings
    payload: TaskPayload


def run_payload(work: object, progress: Progress) -> object:
    """Unpack and run a payload on its worker, in a process of its own: a `TaskFunction`."""
    assert isinstance(work, PlacedPayload)
    settings, payload = work.settings, work.payload
    with Store.open(settings.store).temporary("files") as files:
        unpack_files(payload.files, files)
        # All paths of the work are absolute. Files that programs write to the working directory are removed with it.
        os.chdir(files)
        CURRENT_WORKER.set(replace(settings, files=absolute(files)))
        function, inner = pickle.loads(payload.work)  # noqa: S301 - of the same relbuild: its worker has made sure
        try:
            return function(inner, progress)
        finally:
            os.chdir("/")
