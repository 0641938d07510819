"""A task goes to a machine of its architecture; to one that emulates it where there is none."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.nightly.executors.dask import dask_executor
from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.dask.dask_resources import code_version
from pipeline.nightly.executors.dask.placement import Placement, place_task
from pipeline.nightly.executors.dask.progress_message import ProgressMessage
from pipeline.nightly.executors.executor_protocol import Requirements, TaskResult
from pipeline.nightly.executors.task_result import result_bytes
from pipeline.nightly.executors.worker_health import WorkerHealth
from pipeline.progress import QUIET, Progress
from tests.support.fake_cluster import Cluster, Recorder

ARM = Requirements("aarch64")
HERE = {code_version(): 1.0, "CONTAINERS": 1.0, "MEMORY": float(8 << 30)}
PLAIN = {**HERE, "ARCH-amd64": 1.0}
EMULATING = {**PLAIN, "EMULATED-arm64": 1.0}
NATIVE = {**HERE, "ARCH-arm64": 1.0}


@pytest.mark.parametrize(
    ("workers", "tried", "expected"),
    [
        ({"x": EMULATING, "a": NATIVE}, (), Placement(("a",), frozenset({"a"}))),
        ({"x": EMULATING, "y": PLAIN}, (), Placement(("x",), frozenset({"x"}), emulated=True)),
        ({"x": EMULATING, "a": NATIVE}, ("a",), Placement(("x",), frozenset({"x"}), emulated=True)),
        ({"y": PLAIN}, (), Placement((), frozenset())),
        ({}, (), Placement((), frozenset())),
    ],
    ids=["of its architecture", "emulated", "emulated after a fault", "nowhere", "no workers"],
)
def test_a_machine_of_the_architecture_is_preferred_to_an_emulator(
    workers: dict[str, dict[str, float]], tried: tuple[str, ...], expected: Placement
) -> None:
    assert place_task(workers, ARM, WorkerHealth(), tried) == expected


def test_what_is_of_no_architecture_goes_anywhere() -> None:
    workers = {"x": PLAIN, "a": NATIVE}
    assert place_task(workers, Requirements("", containers=False), WorkerHealth(), ()).usable == ("a", "x")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster of one emulating machine."""
    monkeypatch.setattr(dask_executor, "_POLL_INTERVAL", 0.0)
    monkeypatch.setattr(dask_executor, "_TICK", 0.0)
    return Cluster(("x",), offers={"x": EMULATING, "y": PLAIN, "a": NATIVE})


def executor_of(cluster: Cluster, progress: Progress = QUIET) -> DaskExecutor:
    made = DaskExecutor("tcp://x", progress, 1.0, 0.0, WorkerHealth(), cast("Any", cluster))
    made._read_workers()
    return made


def nothing(work: object, progress: Progress) -> object:
    return None


def wanted(cluster: Cluster) -> list[str]:
    """The resource of an architecture that each submission wants, of those that were not cancelled."""
    given = [one for one in cluster.given if not one.cancelled]
    return [name for one in given for name in one.resources if name.startswith(("ARCH", "EMULATED"))]


def test_a_task_that_waits_for_an_emulator_moves_to_a_machine_of_its_architecture_that_joins(cluster: Cluster) -> None:
    executor = executor_of(cluster)
    executor.start("product/aarch64", nothing, None, ARM)
    assert wanted(cluster) == ["EMULATED-arm64"]
    cluster.names = ("a", "x")
    executor._read_workers()
    executor._end_unplaceable()
    assert wanted(cluster) == ["ARCH-arm64"]
    cluster.names = ("x",)
    executor._read_workers()
    executor._end_unplaceable()
    assert wanted(cluster) == ["EMULATED-arm64"]


def test_a_task_that_has_begun_under_an_emulator_stays_there(cluster: Cluster) -> None:
    executor = executor_of(cluster)
    executor.start("product/aarch64", nothing, None, ARM)
    executor._receive(ProgressMessage(executor._night, "product/aarch64", "1", "x", ()))
    cluster.names = ("a", "x")
    executor._read_workers()
    executor._end_unplaceable()
    assert wanted(cluster) == ["EMULATED-arm64"]


def test_a_task_that_its_architectures_machine_cannot_do_is_emulated(cluster: Cluster) -> None:
    cluster.names = ("a", "x")
    executor = executor_of(cluster)
    executor.start("product/aarch64", nothing, None, ARM)

    def fail(name: str, worker: str) -> TaskResult:
        return TaskResult(name, "failed", "", worker, "disk full")

    assert [one.resources.get("ARCH-arm64") for one in cluster.given] == [1.0]
    (future,) = cluster.given
    future.answer, future.status = result_bytes(fail("product/aarch64", "a")), "finished"
    executor._take_future(cast("Any", future))
    assert wanted(cluster)[-1] == "EMULATED-arm64"


def test_where_no_machine_can_the_error_names_the_architecture_and_the_way_out(cluster: Cluster) -> None:
    cluster.names, recorder = ("y",), Recorder()
    executor = executor_of(cluster, recorder)
    executor.start("product/aarch64", nothing, None, ARM)
    ended = executor.next_result()
    offers = "y has x86_64, containers, 8192 MiB of memory"
    assert ended.lost == f"no worker of the cluster offers aarch64, containers: {offers}"
    assert ended.hint == (
        "start `relbuild worker` on a machine for aarch64, or on one with an emulator for it (docs/architectures.md)"
    )
    assert recorder.warned == [f"product/aarch64 waits: {ended.lost}"]
