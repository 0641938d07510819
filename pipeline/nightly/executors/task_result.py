"""The answer of a cluster's worker as JSON.

Nothing of it is run, and what is no answer is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.model.json_form import from_json, to_json
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.job import JobResult

RESULT_LIMIT = 4 << 20
"""Bytes of what a task returns. It travels through the scheduler; what is large belongs on the mirror."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A `TaskResult`, by what a task may return: what came of a product, or a text."""

    name: str
    lost: str
    worker: str
    fault: str
    worked: JobResult | None = None
    text: str | None = None


def result_bytes(ended: TaskResult) -> bytes:
    """Return a task's result as JSON.

    One that is too large, or of a kind that no task returns, says so instead.
    """
    worked = ended.result if isinstance(ended.result, JobResult) else None
    text = ended.result if isinstance(ended.result, str) else None
    if ended.result is not None and worked is None and text is None:
        return result_bytes(
            TaskResult(ended.name, lost=f"it returned a {type(ended.result).__name__}", worker=ended.worker)
        )
    answer = _Answer(ended.name, ended.lost, ended.worker, ended.fault, worked, text)
    data = json.dumps(to_json(answer), separators=(",", ":")).encode()  # Also of names that are no UTF-8.
    if len(data) > RESULT_LIMIT:
        lost = f"it returned {len(data)} bytes; the limit is {RESULT_LIMIT}"
        return result_bytes(TaskResult(ended.name, lost=lost, worker=ended.worker))
    return data


def read_result(data: object) -> TaskResult:
    """The inverse of `result_bytes`. Raises ValueError for what is no answer."""
    if not isinstance(data, bytes) or len(data) > RESULT_LIMIT:
        raise ValueError("it is not text, or too long")
    try:
        answer = from_json(_Answer, json.loads(data))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    result = answer.text if answer.worked is None else answer.worked
    return TaskResult(answer.name, result, answer.lost, answer.worker, answer.fault)
