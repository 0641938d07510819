"""A night's tasks on many machines: a Dask cluster of real processes, each in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.nightly.executors.executor_protocol import Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.nightly.executors.task_result import RESULT_LIMIT
from pipeline.oci import generate_key
from tests.support import cluster_tasks
from tests.support.cluster_tasks import ProductTask, Waiting
from tests.support.joined_cluster import HERE, Recorder, do, joined, until, until_there
from tests.support.machines import ROOT, Machines, machines
from tests.support.patience import HUNG
from tests.support.product_builds import RECIPE, small_products
from tests.support.rpm_factory import Forge
from tests.support.tiny_root import require_root

pytestmark = pytest.mark.long

NAMES = tuple(f"small-{number}" for number in range(4))
SILENT = 10
"""Seconds without a heartbeat, of which a worker sends two a second: a busy machine keeps none from it for so long."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A scheduler, and two workers that are started again when they end."""
    require_root()
    with machines(tmp_path_factory.mktemp("machines")) as net:
        net.scheduler()
        for name in ("one", "two"):
            net.worker(name, again=True)
        yield net


def begun(folder: Path, name: str) -> dict[int, str]:
    """The processes that began a `wait`, and the workers that they are of."""
    return {int(path.suffix[1:]): path.read_text() for path in folder.glob(f"{name}.*")}


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> Path:
    """Where small products' packages are."""
    folder = tmp_path_factory.mktemp("packages") / "small"
    small_products(folder, made)
    return folder


def test_many_machines_make_the_same_images_as_one(net: Machines, packages: Path, tmp_path: Path) -> None:
    key, _ = generate_key(b"")

    def catalogue(to: Path) -> dict[str, tuple[TaskFunction, object]]:
        return {
            name: (cluster_tasks.build_and_publish, ProductTask(name, packages, f"dir:{to}", key, tmp_path))
            for name in NAMES
        }

    local = ProcessExecutor(Recorder(), 2)
    on_one = do(local, catalogue(tmp_path / "local"))
    local.close()
    until_there(net, "one", "two")
    before = net.made["hub"].carried()
    with joined(net) as (executor, _):
        on_many = do(executor, catalogue(tmp_path / "cluster"))
    passed = net.made["hub"].carried() - before
    assert not [ended.lost for ended in (*on_one.values(), *on_many.values()) if ended.lost]
    assert {name: on_many[name].result for name in NAMES} == {name: on_one[name].result for name in NAMES}
    assert {ended.worker for ended in on_many.values()} == {"one", "two"}
    assert published(tmp_path / "cluster") == published(tmp_path / "local")
    # The images' bytes do not pass the scheduler's link: only payloads, events and results do.
    made = sum(path.stat().st_size for path in (tmp_path / "cluster").rglob("*") if path.is_file())
    assert passed < 1_000_000 < made


def published(mirror: Path) -> set[str]:
    """The names of all blobs of a directory mirror, but of what is signed anew each time."""
    return {path.name for path in mirror.rglob("*") if path.is_file() and path.stat().st_size > 100_000}


def test_a_night_on_a_cluster_comes_to_what_it_comes_to_here(net: Machines, packages: Path, tmp_path: Path) -> None:
    (net.own / "recipes").mkdir()
    shutil.copy(packages / "repositories.yaml", net.own / "recipes")
    for name in ("anemone", "begonia", "cistus"):
        words = {"name": name, "version": "1.0", "note": name, "expected": "1\\\\.0", "mode": "0644"}
        (net.own / "recipes" / f"{name}.yaml").write_text(RECIPE % words)
    (net.own / "key").write_bytes(generate_key(b"secret")[0])
    (net.own / "key").chmod(0o600)

    def night(to: str, *words: str) -> dict[str, Any]:
        mirror = to if to == "own" else os.path.relpath(tmp_path / to, net.own)
        argv = [sys.executable, "-m", "pipeline", "nightly", "recipes", "--key", "key", "--to", f"dir:{mirror}"]
        where = ["--store", f"{tmp_path}/store-{to}", "--output", f"{tmp_path}/output-{to}", "--json", *words]
        added = {"PYTHONPATH": str(ROOT), "RELBUILD_KEY_PASSWORD": "secret"}
        done = subprocess.run(
            [*argv, *where], cwd=net.own, env={**os.environ, **added}, capture_output=True, check=False
        )
        assert done.returncode == (1 if to == "own" else 0), done.stderr.decode()
        return {product["name"]: product for product in json.loads(done.stdout)["products"]}

    here, there = night("here"), night("there", "--scheduler", net.address, "--plain-scheduler")
    assert {name: product["digest"] for name, product in here.items()} == {
        name: product["digest"] for name, product in there.items()
    }
    assert {product["outcome"] for product in there.values()} == {"built"} and len(there) == 3
    assert {product["worker"] for product in here.values()} == {""}
    assert {product["worker"] for product in there.values()} <= {"one", "two"}
    assert {path.name for path in (tmp_path / "there").iterdir()} >= {"blobs", "repositories"}
    again = night("there", "--scheduler", net.address, "--plain-scheduler")
    assert {product["outcome"] for product in again.values()} == {"unchanged"}
    # A mirror that workers do not have is made by them on their own machine: nothing of it is called built.
    lost = night("own", "--scheduler", net.address, "--plain-scheduler")
    assert {product["failure"]["code"] for product in lost.values()} == {"publication-missing"}
    assert {product["outcome"] for product in lost.values()} == {"failed"}


DIGITS_OF_TIMES = 40


def test_the_log_of_a_worker_reads_as_one_of_this_machine(net: Machines, packages: Path, tmp_path: Path) -> None:
    key, _ = generate_key(b"")
    product_task = ProductTask("alone", packages, f"dir:{tmp_path}/cluster", key, tmp_path, store="alone")
    with joined(net) as (executor, there):
        do(executor, {"alone": (cluster_tasks.build_and_publish, product_task)})
    here = Recorder()
    local = ProcessExecutor(here, 1)
    do(local, {"alone": (cluster_tasks.build_and_publish, replace(product_task, to=f"dir:{tmp_path}/local"))})
    local.close()
    assert len(here.lines) > 10
    assert [line.replace("/cluster/", "/local/") for line in sorted(there.lines)] == sorted(here.lines)
    # What is published has the evidence in it, which says how long things took: a digit more or less of each.
    assert sorted(here.counts.values()) == pytest.approx(sorted(there.counts.values()), abs=DIGITS_OF_TIMES)


def test_a_worker_that_is_killed_costs_its_own_task_and_that_is_done_elsewhere(net: Machines, tmp_path: Path) -> None:
    with joined(net) as (executor, log):
        for name in ("first", "second"):
            executor.start(name, cluster_tasks.wait, Waiting(name, tmp_path), HERE)
        until(lambda: bool(begun(tmp_path, "first") and begun(tmp_path, "second")))
        ((pid, victim),) = begun(tmp_path, "first").items()
        net.made[victim].commands[0].kill()
        until(lambda: not lives(pid))
        until(lambda: len(begun(tmp_path, "first")) == 2)
        (tmp_path / "go").touch()
        ended = {end.name: end for end in (executor.next_result(), executor.next_result())}
    assert not [end.lost for end in ended.values() if end.lost]
    assert len(begun(tmp_path, "second")) == 1
    assert log.failed == [f"smoke first: waits on {victim}"]
    assert f"warning: first: begun on {victim}" in log.lines
    (again,) = [line for line in log.lines if "restarts the task" in line]
    assert again.startswith(f"warning: first: worker {victim} was lost; ")


def test_a_worker_that_falls_silent_costs_so_many_seconds_and_its_task_is_done_elsewhere(
    net: Machines, tmp_path: Path
) -> None:
    until_there(net, "one", "two")
    with joined(net, silence=SILENT) as (executor, log):
        executor.start("long", cluster_tasks.wait, Waiting("long", tmp_path), HERE)
        until(lambda: bool(begun(tmp_path, "long")))
        ((_, victim),) = begun(tmp_path, "long").items()
        process = net.made[victim].commands[0].process
        process.send_signal(signal.SIGSTOP)
        stopped, found = time.monotonic(), []
        waiting = threading.Thread(target=lambda: found.append(executor.next_result()))
        waiting.start()
        try:
            until(lambda: len(begun(tmp_path, "long")) == 2)
            took = time.monotonic() - stopped
            assert [one.worker for one in executor.set_aside] == [victim]
        finally:
            process.send_signal(signal.SIGCONT)
        (tmp_path / "go").touch()
        waiting.join()
    assert found[0].lost == "" and found[0].worker != victim
    assert SILENT <= took < HUNG, took
    assert f"warning: {victim} sent no heartbeat for {SILENT} s; its tasks are reassigned" in log.lines


def test_a_sick_worker_is_set_aside_and_costs_no_task(net: Machines) -> None:
    until_there(net, "one", "two")
    with joined(net) as (executor, _):
        ended = do(executor, {f"t{number}": (cluster_tasks.lack_on_one, None) for number in range(6)})
        assert {end.result for end in ended.values()} == {"two"}
        assert [(one.worker, one.why) for one in executor.set_aside] == [("one", "its store is full")]


def test_a_task_that_kills_its_workers_is_given_up_after_three(net: Machines) -> None:
    with joined(net) as (executor, log):
        ended = do(executor, {"deadly": (cluster_tasks.kill_the_worker, None), "good": (cluster_tasks.say_where, None)})
    assert ended["deadly"].lost.startswith("3 workers died while running it, the last was ")
    assert ended["good"].lost == "" and ended["good"].result in ("one", "two")
    assert sum("deadly: worker" in line and "was lost" in line for line in log.lines) == 3


def test_a_scheduler_that_is_started_again_gets_again_what_had_not_ended(net: Machines, tmp_path: Path) -> None:
    hub = net.made["hub"]
    with joined(net) as (executor, log):
        executor.start("long", cluster_tasks.wait, Waiting("long", tmp_path), HERE)
        until(lambda: bool(begun(tmp_path, "long")))
        (pid,) = begun(tmp_path, "long")
        hub.commands[-1].kill()
        hub.commands[-1].close()
        until(lambda: not lives(pid))
        ended = threading.Thread(target=lambda: found.append(executor.next_result()))
        found: list[TaskResult] = []
        ended.start()
        until(lambda: any("lost" in line for line in log.lines))  # else it may be back before anybody notices
        net.scheduler()
        until(lambda: len(begun(tmp_path, "long")) == 2)
        (tmp_path / "go").touch()
        ended.join()
        after = do(executor, {"after": (cluster_tasks.say_where, None)})
    assert found[0].lost == "" and found[0].result == found[0].worker
    assert after["after"].lost == ""
    assert [line for line in log.lines if "scheduler" in line] == [
        f"warning: connection to the scheduler {net.address} lost; reconnecting for {HUNG:.0f} s",
        f"warning: the scheduler {net.address} is back; running tasks are submitted again",
    ]


def test_a_scheduler_that_stays_away_costs_what_had_not_ended(net: Machines, tmp_path: Path) -> None:
    hub = net.made["hub"]
    try:
        with joined(net, scheduler_timeout=2) as (executor, _):
            for name in ("one", "two"):
                executor.start(name, cluster_tasks.wait, Waiting(name, tmp_path), HERE)
            until(lambda: bool(begun(tmp_path, "one")))
            hub.commands[-1].close()
            lost = [executor.next_result(), executor.next_result()]
            executor.start("three", cluster_tasks.wait, Waiting("three", tmp_path), HERE)
            lost.append(executor.next_result())
    finally:
        net.scheduler()
    assert {end.name for end in lost} == {"one", "two", "three"}
    assert {end.lost for end in lost} == {f"connection to the scheduler {net.address} lost, and not restored in time"}


def test_what_is_ended_early_ends_on_the_workers_too(net: Machines, tmp_path: Path) -> None:
    with joined(net) as (executor, _):
        executor.start("long", cluster_tasks.wait, Waiting("long", tmp_path), HERE)
        until(lambda: bool(begun(tmp_path, "long")))
        (pid,) = begun(tmp_path, "long")
        assert lives(pid)
    until(lambda: not lives(pid))


def test_what_no_worker_can_do_is_said_and_not_waited_for_for_ever(net: Machines) -> None:
    until_there(net, "one", "two")
    with joined(net, wait=1) as (executor, log):
        executor.start("sparc", cluster_tasks.say_where, None, Requirements("sparc64"))
        executor.start("huge", cluster_tasks.say_where, None, Requirements("x86_64", memory=1 << 50, containers=False))
        ended = {end.name: end.lost for end in (executor.next_result(), executor.next_result())}
    lack = "no worker of the cluster offers"
    assert ended["sparc"].startswith(f"{lack} sparc64, containers: one has x86_64, ")
    assert ended["huge"].startswith(f"{lack} x86_64, {1 << 30} MiB of memory: one has x86_64, ")
    assert {line.partition(":")[2][:30] for line in log.lines} == {f" {name} waits: {lack}"[:30] for name in ended}


def test_a_result_that_is_too_large_for_the_scheduler_is_refused(net: Machines) -> None:
    with joined(net) as (executor, _):
        sizes = {"fits": RESULT_LIMIT - 1000, "large": RESULT_LIMIT}
        ended = do(executor, {name: (cluster_tasks.return_much, size) for name, size in sizes.items()})
    assert ended["fits"].result == "x" * (RESULT_LIMIT - 1000)
    assert "the limit is" in ended["large"].lost


@pytest.mark.parametrize(
    ("words", "environment"),
    [(["--no-nanny"], {}), (["--nanny"], {"DASK_DISTRIBUTED__WORKER__DAEMON": "False"})],
    ids=["alone", "nanny"],
)
def test_dasks_own_worker_does_the_same(net: Machines, words: list[str], environment: dict[str, str]) -> None:
    name = f"dasks{words[0]}"
    argv = ("-m", "dask", "worker", net.address, "--nthreads", "1", "--name", name)
    command = net.machine(name[-8:]).run(
        *argv, "--preload", "pipeline.cli.commands.worker", *words, environment=environment
    )
    try:
        with joined(net) as (executor, _):
            where: set[str] = set()
            deadline = time.monotonic() + HUNG
            while name not in where:
                assert time.monotonic() < deadline, net.made[name[-8:]].said
                ended = do(executor, {str(number): (cluster_tasks.say_where, None) for number in range(6)})
                assert not [end.lost for end in ended.values() if end.lost]
                where |= {str(end.result) for end in ended.values()}
    finally:
        command.close()
