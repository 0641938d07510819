"""Whoever kills relbuild, or its whole process group, ends what it launched: nothing is left, without another run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.leftover_check import (
    Snapshot,
    left_since,
    marks_of,
    reapers_of,
    snapshot,
)
from tests.support.tiny_root import make_root

pytestmark = pytest.mark.alone

WITHIN = 5.0
"""Seconds after which nothing may be left."""

INSTANCES = 20


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


@pytest.fixture
def state(closed: Path, request: pytest.FixtureRequest) -> Path:
    return closed / f"state-{request.node.name.partition('[')[0]}"


def _launcher(state: Path, root: Path, instances: int, sessions: int, *how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.killed_launcher", state, root, str(instances), str(sessions), *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def _lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(count)]
    assert all(lines), "it ended"
    return lines


def _end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    process.wait()


def _kill_process(process: subprocess.Popen[str]) -> None:
    process.kill()


def _kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [_kill_process, _kill_group], ids=["process", "group"])
def test_nothing_is_left_of_twenty_instances_five_seconds_after_kill_9(
    root: Path, state: Path, kill: Callable[[subprocess.Popen[str]], None]
) -> None:
    before = snapshot(state)
    process = _launcher(state, root, INSTANCES, 2)
    _lines(process, INSTANCES + 2)
    _assert_seen(before)
    kill(process)
    _end(process)
    assert left_since(before, within=WITHIN) == ()


def test_nothing_is_left_of_a_killed_worker_while_the_process_that_gave_the_work_goes_on(
    root: Path, state: Path
) -> None:
    before = snapshot(state)
    process = _launcher(state, root, 1, 1, "worker")
    worker = int(_lines(process, 1)[0])
    _lines(process, 2)
    try:
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + WITHIN
        while any("file" in one or "group" in one or "loop" in one for one in left_since(before)):
            assert time.monotonic() < deadline, left_since(before)
            time.sleep(0.05)
        assert process.poll() is None
    finally:
        _end(process)
    assert left_since(before, within=WITHIN) == ()


def test_a_reaper_that_is_killed_is_replaced(root: Path, state: Path) -> None:
    before = snapshot(state)
    process = _launcher(state, root, 1, 0)
    _lines(process, 1)
    first = set(reapers_of(state))
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while not set(reapers_of(state)) - first:  # The killed one may still be there for a moment.
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _kill_group(process)
    _end(process)
    assert left_since(before, within=WITHIN) == ()


def test_a_kill_while_containers_are_being_started_leaves_nothing(root: Path, state: Path) -> None:
    for moment in range(5):
        before = snapshot(state)
        process = _launcher(state, root, 3, 1)
        _lines(process, 1)
        time.sleep(moment * 0.02)
        _kill_group(process)
        _end(process)
        assert left_since(before, within=WITHIN) == (), f"killed {moment * 20} ms after the first was up"


def _assert_seen(before: Snapshot) -> None:
    """The check sees what runs; else it would find nothing afterwards either."""
    kinds = {one.partition(" ")[0] for one in left_since(before)}
    assert {"process", "control", "loop", "file"} <= kinds
    assert marks_of(before.folders)
