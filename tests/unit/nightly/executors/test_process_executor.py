"""Processes of this machine that do a night's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from pipeline.nightly.executors.executor_protocol import Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.progress import QUIET
from tests.support import interrupted_task, unruly_tasks

ANY = Requirements("x86_64")


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(QUIET, 1)
    yield made
    made.close()


def result_of(executor: ProcessExecutor, task: TaskFunction) -> TaskResult:
    executor.start("one", task, "alive", ANY)
    return executor.next_result()


def test_the_terminals_ctrl_c_is_for_the_process_that_gave_the_task(executor: ProcessExecutor) -> None:
    """A worker that took it too would end with a traceback of its own beside the one line."""
    ended = result_of(executor, interrupted_task.survive)
    assert (ended.lost, ended.result) == ("", "alive False True")


def test_a_result_is_whole_although_a_thread_of_the_task_still_reports(executor: ProcessExecutor) -> None:
    ended = result_of(executor, unruly_tasks.return_while_a_thread_reports)
    assert (ended.lost, ended.result) == ("", "x" * unruly_tasks.LARGE)


@pytest.mark.parametrize("task", [unruly_tasks.return_unreadable, unruly_tasks.report_unreadable_and_wait])
def test_a_task_that_sends_what_cannot_be_read_is_lost_and_the_night_goes_on(
    executor: ProcessExecutor, task: TaskFunction
) -> None:
    ended = result_of(executor, task)
    assert ended == TaskResult("one", lost="what its process sent cannot be read: LookupError: no such class here")
    assert result_of(executor, interrupted_task.survive).lost == ""


def test_a_task_that_cannot_be_sent_leaves_no_pipe_open(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Connection]()
    pipe = executor._context.Pipe

    def kept(duplex: bool) -> tuple[Connection, Connection]:
        ends = pipe(duplex)
        opened.extend(ends)
        return ends

    monkeypatch.setattr(executor._context, "Pipe", kept)
    with pytest.raises(AttributeError, match="local object"):
        executor.start("one", lambda work, progress: work, "alive", ANY)
    assert [end.closed for end in opened] == [True, True]
