"""JSON encoding of a cluster task's result, with a size limit, and its checked decoding.

Decoding runs no code, unlike unpickling.
"""

from __future__ import annotations

import json

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.job import JobResult

RESULT_LIMIT = 4 << 20
"""Bytes of an encoded result. It passes the scheduler; large content belongs on the mirror."""


@dataclass(frozen=True, slots=True)
class _EncodedResult:
    """The encoded form of a `TaskResult`, whose result is a `JobResult` or a text."""

    name: str
    lost: str
    worker: str
    fault: str
    unsuitable: bool = False
    job_result: JobResult | None = None
    text: str | None = None


def result_bytes(ended: TaskResult) -> bytes:
    """Return a task's result as JSON.

    One that is too large, or of another type than `JobResult` or str, is replaced by the result of a failed task.
    """
    job_result = ended.result if isinstance(ended.result, JobResult) else None
    text = ended.result if isinstance(ended.result, str) else None
    if ended.result is not None and job_result is None and text is None:
        return result_bytes(
            TaskResult(ended.name, lost=f"it returned a {type(ended.result).__name__}", worker=ended.worker)
        )
    answer = _EncodedResult(ended.name, ended.lost, ended.worker, ended.fault, ended.unsuitable, job_result, text)
    data = json.dumps(to_json(answer), separators=(",", ":")).encode()  # Also of names that are no UTF-8.
    if len(data) > RESULT_LIMIT:
        lost = f"it returned {len(data)} bytes; the limit is {RESULT_LIMIT}"
        return result_bytes(TaskResult(ended.name, lost=lost, worker=ended.worker))
    return data


def read_result(data: object) -> TaskResult:
    """Decode a result from `result_bytes`. Raises ValueError for any other data."""
    if not isinstance(data, bytes) or len(data) > RESULT_LIMIT:
        raise ValueError(f"it is not bytes, or more than {RESULT_LIMIT} bytes")
    try:
        answer = from_json(_EncodedResult, json.loads(data))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    result = answer.text if answer.job_result is None else answer.job_result
    return TaskResult(answer.name, result, answer.lost, answer.worker, answer.fault, answer.unsuitable)
