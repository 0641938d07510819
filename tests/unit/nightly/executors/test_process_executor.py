"""Processes of this machine that do a night's tasks."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from pipeline.nightly.executors.executor_protocol import Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.nightly.executors.progress_ipc import EventKind, ProgressEvent
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
    ended = executor.next_result()
    assert ended is not None
    return ended


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
    # The first before Python 3.14, the second since.
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        executor.start("one", lambda work, progress: work, "alive", ANY)
    assert [end.closed for end in opened] == [True, True]


def _testing(executor: ProcessExecutor, name: str, *events: ProgressEvent) -> None:
    for event in events:
        executor._running[name].receive(event)


@pytest.mark.parametrize(("overlap", "sizes"), [(True, [2, 3, 3, 2]), (False, [2, 2, 2, 2])])
def test_a_task_that_tests_a_container_leaves_its_place(overlap: bool, sizes: list[int]) -> None:
    """Until its test ends; what else it does meanwhile does not count twice."""
    executor = ProcessExecutor(QUIET, 2, overlap=overlap)
    try:
        executor.start("one", interrupted_task.survive, "alive", ANY)
        found = [executor.size]
        _testing(
            executor, "one", ProgressEvent(EventKind.START, 1, "layer"), ProgressEvent(EventKind.START, 2, "smoke")
        )
        found.append(executor.size)
        _testing(executor, "one", ProgressEvent(EventKind.START, 3, "smoke"), ProgressEvent(EventKind.FINISH, 3))
        found.append(executor.size)
        _testing(executor, "one", ProgressEvent(EventKind.FINISH, 2))
        found.append(executor.size)
        assert found == sizes
    finally:
        executor.close()


def test_no_more_than_twice_as_many_tasks_are_started() -> None:
    """Each has memory of its own, however long tests wait."""
    executor = ProcessExecutor(QUIET, 1, overlap=True)
    try:
        for name in ("one", "two"):
            executor.start(name, interrupted_task.survive, "alive", ANY)
            _testing(executor, name, ProgressEvent(EventKind.START, 1, "smoke"))
        assert executor.size == 2
    finally:
        executor.close()


def test_a_place_that_became_free_is_told_before_a_result() -> None:
    """So that the next task can be started while the container is tested."""
    executor = ProcessExecutor(QUIET, 1, overlap=True)
    try:
        executor.start("one", unruly_tasks.wait_for_a_container, "tested", ANY)
        assert executor.next_result() is None
        assert executor.size == 2
        assert executor.next_result() == TaskResult("one", "tested")
        assert executor.size == 1
    finally:
        executor.close()
