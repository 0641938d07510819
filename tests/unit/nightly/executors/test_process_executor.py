"""Processes of this machine that do a night's tasks."""

from __future__ import annotations

from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.progress import QUIET
from tests.support import interrupted_task


def test_the_terminals_ctrl_c_is_for_the_process_that_gave_the_task() -> None:
    """A worker that took it too would end with a traceback of its own beside the one line."""
    executor = ProcessExecutor(QUIET, 1)
    try:
        executor.start("one", interrupted_task.survive, "alive", Requirements("x86_64"))
        ended = executor.next_result()
    finally:
        executor.close()
    assert (ended.lost, ended.result) == ("", "alive False True")
