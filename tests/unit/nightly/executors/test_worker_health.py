"""A worker whose machine is sick, or that falls silent, costs a night a message and no product."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.model.night_record import ExcludedWorker
from pipeline.nightly.executors import process_executor
from pipeline.nightly.executors.dask import dask_executor
from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.dask.progress_message import ProgressMessage
from pipeline.nightly.executors.executor_protocol import MachineFault, Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.nightly.executors.task_result import result_bytes
from pipeline.nightly.executors.worker_health import SILENCE_TIMEOUT, TRIED_WORKERS_LIMIT, WorkerHealth
from pipeline.progress import QUIET, Progress
from tests.support.fake_cluster import Cluster, Recorder

NEEDS = Requirements("x86_64")
FULL = "disk full while writing the store"


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "_POLL_INTERVAL", 0.0)
    monkeypatch.setattr(dask_executor, "_TICK", 0.0)


def executor_of(workers: Cluster, progress: Progress, silence: float = SILENCE_TIMEOUT) -> DaskExecutor:
    return DaskExecutor("tcp://x", progress, 1.0, 1.0, WorkerHealth(silence), cast("Any", workers))


def nothing(work: object, progress: Progress) -> object:
    return None


def night(
    workers: Cluster, do: Callable[[str, str], TaskResult], count: int = 8
) -> tuple[DaskExecutor, Recorder, list[TaskResult]]:
    """So many tasks, two at a time, as a night gives them."""
    recorder = Recorder()
    executor = executor_of(workers, recorder)
    waiting, under_way, ended = [f"p{number}" for number in range(count)], 0, []
    while waiting or under_way:
        executor._read_workers()
        while waiting and under_way < 2:
            executor.start(waiting.pop(0), nothing, None, NEEDS)
            under_way += 1
        workers.hand_out(executor, do)
        while executor._news.qsize():
            executor._take_future(cast("Any", executor._news.get()))
        ended += executor._ended
        under_way -= len(executor._ended)
        executor._ended.clear()
    return executor, recorder, ended


def test_one_sick_worker_costs_no_product_and_is_named() -> None:
    def do(name: str, worker: str) -> TaskResult:
        if worker == "sick":
            return TaskResult(name, result="failed", worker=worker, fault=FULL)
        return TaskResult(name, "done", "", worker)

    executor, recorder, ended = night(Cluster(("one", "sick", "two"), fast="sick"), do)
    assert [one.result for one in ended] == ["done"] * 8
    assert executor.set_aside == (ExcludedWorker("sick", FULL),)
    # Both tasks that were under way when the first failed may have been tried there; none after.
    assert len([line for line in recorder.warned if "is retried on another worker" in line]) <= 2
    assert any("sick gets no more tasks" in line and FULL in line for line in recorder.warned)


def test_a_sound_worker_that_one_task_does_not_suit_gets_others() -> None:
    """One worker of five has the emulator of one product's second architecture."""

    def do(name: str, worker: str) -> TaskResult:
        if name == "p0" and worker != "five":
            return TaskResult(name, "failed", "", worker, "cannot run programs for arm64", unsuitable=True)
        return TaskResult(name, "done", "", worker)

    executor, recorder, ended = night(Cluster(("five", "four", "one", "three", "two"), fast="one"), do)
    assert [one.result for one in ended] == ["done"] * 8
    assert executor.set_aside == () and not [line for line in recorder.warned if "no more tasks" in line]
    assert {one.worker for one in ended if one.name != "p0"} == {"one"}, "it is not even suspended"


def test_a_task_that_suits_no_worker_fails_and_its_workers_get_others() -> None:
    names = tuple(f"w{number:02}" for number in range(30))
    executor, _, ended = night(
        Cluster(names),
        lambda name, worker: TaskResult(name, "failed", "", worker, "cannot run programs for arm64", unsuitable=True),
        count=1,
    )
    assert [one.result for one in ended] == ["failed"] and executor.set_aside == ()
    assert len(ended[0].tried) == dask_executor._SUBMISSIONS_LIMIT
    assert executor.health.usable(names, ()) == names


def test_a_sick_worker_is_named_although_another_is_merely_unsuitable() -> None:
    def do(name: str, worker: str) -> TaskResult:
        if worker == "able":
            return TaskResult(name, "done", "", worker)
        return TaskResult(name, "failed", "", worker, FULL, unsuitable=worker == "plain")

    executor, _, _ = night(Cluster(("able", "plain", "sick"), fast="sick"), do)
    assert executor.set_aside == (ExcludedWorker("sick", FULL),)


def test_what_every_worker_lacks_sets_none_of_them_aside() -> None:
    executor, recorder, ended = night(
        Cluster(("one", "two", "three", "four")),
        lambda name, worker: TaskResult(name, "failed", "", worker, "registry down"),
    )
    assert [one.result for one in ended] == ["failed"] * 8
    assert {len(one.tried) for one in ended} == {TRIED_WORKERS_LIMIT}
    assert executor.set_aside == () and not [line for line in recorder.warned if "no more tasks" in line]


def test_a_cluster_of_one_sick_worker_fails_its_products_at_once() -> None:
    executor, _, ended = night(Cluster(("sick",)), lambda name, worker: TaskResult(name, "failed", "", worker, FULL))
    assert [one.result for one in ended] == ["failed"] * 8
    assert {one.tried for one in ended} == {("sick",)} and executor.set_aside == ()


def test_a_task_that_fails_on_its_own_account_is_not_tried_elsewhere() -> None:
    workers = Cluster(("one", "two"))
    executor, _, _ = night(workers, lambda name, worker: TaskResult(name, "smoke failed", "", worker))
    assert len(workers.given) == 8 and executor.set_aside == ()


# --- silence --------------------------------------------------------------------------------------------


def test_a_worker_is_silent_when_the_scheduler_hears_nothing_of_it_for_so_long() -> None:
    health = WorkerHealth(silence=5)
    assert health.look({"one": 100.0, "two": 7.0}, 0) == ()
    assert health.look({"one": 101.0, "two": 7.0}, 4.9) == ()
    assert health.look({"one": 102.0, "two": 7.0}, 5) == ("two",)
    assert health.look({"one": 103.0, "two": 7.0}, 6) == ()  # It is said once.
    assert health.usable(("one", "two"), ()) == ("one",)
    assert [one.worker for one in health.set_aside] == ["two"]
    health.look({"one": 104.0, "two": 8.0}, 7)
    assert health.set_aside == () and health.usable(("one", "two"), ()) == ("one", "two")


def test_a_silent_workers_tasks_are_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(dask_executor.time, "monotonic", lambda: now[0])
    workers, recorder = Cluster(("one", "two"), seen={"one": 1.0, "two": 1.0}), Recorder()
    executor = executor_of(workers, recorder, silence=5)
    executor._read_workers()
    executor.start("begun", nothing, None, NEEDS)
    executor.start("waits", nothing, None, NEEDS)
    executor._receive(ProgressMessage(executor._night, "begun", "first", "two", ()))
    for passed in (3.0, 6.0):
        now[0], workers.seen["one"] = passed, passed
        executor._read_workers()
    again = workers.given[2:]
    assert [(one.task.name, one.only) for one in again] == [("begun", ["one"]), ("waits", ["one"])]
    assert [one.cancelled for one in workers.given] == [True, True, False, False]
    assert recorder.warned == ["two sent no heartbeat for 5 s; its tasks are reassigned"]
    # Its late answer counts no more.
    workers.given[0].answer = result_bytes(TaskResult("begun", "late", "", "two"))
    executor._take_future(cast("Any", workers.given[0]))
    assert executor._ended == []


def test_the_document_says_how_long_silence_is_borne() -> None:
    text = (Path(__file__).parents[4] / "docs" / "cluster.md").read_text()
    (minutes,) = re.findall(r"after (\w+) minutes where it just goes silent", text)
    assert {"five": 300.0}[minutes] == SILENCE_TIMEOUT


# --- what is a machine's fault ------------------------------------------------------------------------------


def fail_with_eio(work: object, progress: Progress) -> object:
    raise OSError(errno.EIO, "Input/output error", "/store/blobs/x")


def lack(work: object, progress: Progress) -> object:
    raise EnvironmentLacking("no-cgroups", "no control groups")


def say_lacking(work: object, progress: Progress) -> object:
    return MachineFault("no control groups", "the product that failed")


def say_unsuitable(work: object, progress: Progress) -> object:
    return MachineFault("no emulator", "the product that failed", unsuitable=True)


def be_wrong(work: object, progress: Progress) -> object:
    raise ValueError("a defect")


@dataclass
class Pipe:
    sent: list[object] = field(default_factory=list)

    def send(self, value: object) -> None:
        self.sent.append(value)

    def close(self) -> None:
        pass


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[TaskFunction], TaskResult]]:
    monkeypatch.setattr(process_executor, "_end_with_parent", lambda: None)

    def perform(act: TaskFunction) -> TaskResult:
        pipe = Pipe()
        process_executor._perform(cast("Any", pipe), act, None)
        (ended,) = pipe.sent
        assert isinstance(ended, TaskResult)
        return ended

    yield perform


def test_what_a_machine_lacks_is_told_from_what_a_task_does_wrong(
    performed: Callable[[TaskFunction], TaskResult],
) -> None:
    assert "/store/blobs/x" in performed(fail_with_eio).fault
    assert "no control groups" in performed(lack).fault
    assert performed(say_lacking) == TaskResult("", "the product that failed", fault="no control groups")
    assert performed(say_unsuitable).unsuitable and performed(say_unsuitable).fault == "no emulator"
    assert performed(be_wrong).fault == "" and performed(be_wrong).lost == "ValueError: a defect"
    assert performed(nothing) == TaskResult("")


def test_on_one_machine_there_is_nobody_to_try_it_again() -> None:
    assert ProcessExecutor(QUIET, 1).set_aside == ()
