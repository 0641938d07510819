"""The reaper: it waits for its owner's end, does nothing where nothing was left, and is replaced when it is killed."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sandbox import reaper, supervision
from tests.support.patience import HUNG


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "live").mkdir()
    return tmp_path


@pytest.fixture
def supervised(state: Path) -> Iterator[supervision._Supervised]:
    supervision.supervise(state)
    mine = supervision._supervised[os.getpid(), state]
    yield mine
    with mine.lock:
        running, mine.running = mine.running, None
    assert running is not None
    running.kill()


def test_a_held_lock_is_not_a_sandbox_that_was_left_and_a_free_one_is(state: Path) -> None:
    assert not reaper._left(reaper._locks(str(state / "live")))
    lock = state / "live" / "x.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not reaper._left(reaper._locks(str(state / "live")))
    assert reaper._left(reaper._locks(str(state / "live")))
    lock.unlink()
    assert not reaper._left(reaper._locks(str(state / "missing")))


def test_one_reaper_for_all_sandboxes_of_a_process(supervised: supervision._Supervised, state: Path) -> None:
    assert supervised.running is not None
    first = supervised.running.pid
    supervision.supervise(state)
    assert supervised.running.pid == first


def test_it_is_in_a_session_of_its_own(supervised: supervision._Supervised) -> None:
    assert supervised.running is not None
    assert os.getsid(supervised.running.pid) == supervised.running.pid


def test_a_killed_reaper_is_replaced(supervised: supervision._Supervised) -> None:
    first = supervised.running
    assert first is not None
    first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HUNG
    while supervised.running is first:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert supervised.running is not None
    assert supervised.running.poll() is None


def test_it_ends_with_its_owner_and_starts_nothing_where_nothing_was_left(state: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        supervision.supervise(state)
        running = supervision._supervised[os.getpid(), state].running
        os.write(write, str(running.pid if running else 0).encode())
        os._exit(0)
    os.close(write)
    pid = int(os.read(read, 20))
    os.close(read)
    os.waitpid(child, 0)
    deadline = time.monotonic() + HUNG
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class _ExecutedError(Exception):
    """The reaper became the program that clears sandboxes."""


def _ended() -> int:
    """A pidfd of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    handle = os.pidfd_open(process.pid)
    process.wait()
    return handle


def _reap(state: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the reaper of an owner that has ended; whether it goes on to clear sandboxes."""

    def execute(*_: object) -> None:
        raise _ExecutedError

    monkeypatch.setattr(os, "execv", execute)
    owner = _ended()
    try:
        reaper.main(owner, str(state), "[]")
    except _ExecutedError:
        return True
    finally:
        os.close(owner)
    return False


def test_a_sandbox_is_seen_whose_lock_a_forked_process_holds_for_a_moment_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between fork and exec a child of relbuild holds its locks, also when relbuild was killed meanwhile."""
    (tmp_path / "live").mkdir()
    lock = os.open(tmp_path / "live" / "a.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            os.close(lock)  # It executes its program.

    monkeypatch.setattr(reaper.time, "sleep", wait)
    assert _reap(tmp_path, monkeypatch)
    assert len(looks) == 3


def test_sandboxes_of_others_are_left_alone_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "live").mkdir()
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr(reaper.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(reaper.time, "sleep", lambda _: None)
    assert not _reap(tmp_path, monkeypatch), "nothing is there"
    lock = os.open(tmp_path / "live" / "a.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert not _reap(tmp_path, monkeypatch), "somebody holds it"
    os.close(lock)
    assert _reap(tmp_path, monkeypatch)
