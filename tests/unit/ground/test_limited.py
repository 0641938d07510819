"""Work in a child process: each limit ends it, and the next request finds another child."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from pipeline import limited
from pipeline.errors import EnvironmentLacking
from pipeline.limited import child_process
from pipeline.limited.child_process import LimitMet, call_limited
from pipeline.process import CommandGroup, Process, start
from pipeline.render.templates import evaluate_template
from tests.support.patience import HUNG

WORK = "tests.support.limited_work"


def do(**request: object) -> object:
    return call_limited(WORK, request)


def pid() -> int:
    seen = do(see=True)
    assert isinstance(seen, list)
    return int(seen[1])


def test_requests_and_their_bytes_come_back_from_one_child() -> None:
    assert call_limited(WORK, {"a": [1, None, "é\ud800"]}, body=b"x" * 3_000_000) == [
        {"a": [1, None, "é\ud800"]},
        3_000_000,
    ]
    assert pid() == pid() != os.getpid()


def test_the_child_asks_in_the_middle() -> None:
    assert call_limited(WORK, {"ask": {"template": "a"}}, answer=lambda question: {"told": question}) == [
        {"told": {"template": "a"}},
        {"told": {"template": "a"}},
    ]


def test_a_child_that_asks_too_much_is_told_how_much_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "QUESTIONS_LIMIT", 1)
    with pytest.raises(LimitMet, match="makes more than 1 requests"):
        call_limited(WORK, {"ask": {"template": "a"}}, answer=lambda question: question)


def test_a_module_that_is_loaded_early_is_called_as_any_other() -> None:
    child_process._stop_all()
    limited.load_early(WORK)
    limited.load_early(WORK)
    (child,) = child_process._children
    assert child._unread == 1, "it is asked for once"
    assert do(plain=1) == [{"plain": 1}, 0]
    limited.load_early(WORK)
    assert do(plain=2) == [{"plain": 2}, 0]


def test_a_module_that_cannot_be_loaded_early_is_told_when_it_is_called() -> None:
    child_process._stop_all()
    limited.load_early("no.such.module")
    assert do(plain=1) == [{"plain": 1}, 0]
    with pytest.raises(EnvironmentLacking, match="No module named 'no'"):
        call_limited("no.such.module", 1)


def test_a_child_that_is_killed_while_it_loads_is_told_and_the_next_one_serves() -> None:
    child_process._stop_all()
    limited.load_early(WORK)
    child_process._children[0]._process.kill()
    with pytest.raises((EnvironmentLacking, LimitMet)):
        do(plain=1)
    assert do(plain=2) == [{"plain": 2}, 0]


def test_where_no_child_can_be_started_early_nothing_is_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    child_process._stop_all()
    monkeypatch.setattr(child_process, "start", refuse)
    limited.load_early(WORK)
    with pytest.raises(EnvironmentLacking) as caught:
        do(plain=1)
    assert caught.value.code == "child-failed"


def test_the_child_has_no_environment_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    child_process._stop_all()
    seen = do(see=True)
    assert isinstance(seen, list) and "SECRET" not in seen[0]


def test_modules_are_found_where_this_process_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lies_elsewhere.py").write_text("def serve(request, body, ask):\n    return ['served', request]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(child_process, "_children", [])
    try:
        assert call_limited("lies_elsewhere", 1) == ["served", 1]
    finally:
        child_process._stop_all()


def test_processor_time_is_limited_and_the_next_request_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 0)  # what is left of the child's first second
    first = pid()
    with pytest.raises(LimitMet, match="processor time"):
        do(spin=True)
    assert pid() != first


def test_memory_is_limited() -> None:
    with pytest.raises(LimitMet, match="MiB of memory"):
        do(hold=4 << 30)


def test_output_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitMet, match="MiB of output"):
        do(flood=child_process.RESULT_SIZE_LIMIT)


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    pid()
    monkeypatch.setattr(child_process, "CALL_DEADLINE", 0.3)
    began = time.monotonic()
    with pytest.raises(LimitMet, match="does not end within"):
        do(sleep=2 * HUNG)
    assert time.monotonic() - began < HUNG


def test_a_child_that_dies_is_told_of_and_replaced() -> None:
    with pytest.raises(LimitMet, match="status 3"):
        do(exit=3)
    os.kill(pid(), signal.SIGKILL)
    with pytest.raises(LimitMet, match="SIGKILL"):
        do(see=True)
    assert pid()


def test_a_child_that_cannot_start_is_no_fault_of_what_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_children", [])
    monkeypatch.setattr(child_process, "start", _with_a_broken_library)
    with pytest.raises(EnvironmentLacking, match="no library today") as caught:
        evaluate_template("{{ 1 * 2 }}", {}, place="demo.yaml:3")
    assert caught.value.code == "child-failed" and caught.value.problems[0].hint
    monkeypatch.undo()
    assert evaluate_template("{{ 1 * 2 }}", {}, place="demo.yaml:3") == "2"


def _with_a_broken_library(argv: Sequence[str], **pipes: IO[bytes] | int) -> Process:
    return start([*argv[:-2], "-c", "raise SystemExit('no library today')", argv[-1]], **pipes)


def test_a_child_that_cannot_load_what_it_needs_says_which() -> None:
    with pytest.raises(EnvironmentLacking, match="No module named 'absent_library'") as caught:
        call_limited("absent_library", {})
    assert caught.value.code == "child-failed"
    assert pid()


def test_the_child_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(LimitMet):
        do(write=str(tmp_path / "file"))
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0


def test_threads_share_the_child_and_get_their_own_results() -> None:
    results: dict[int, object] = {}

    def ask(number: int) -> None:
        results[number] = call_limited(WORK, {"n": number})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [{"n": number}, 0] for number in range(8)}


def test_a_forked_process_has_a_child_of_its_own() -> None:
    mine = pid()
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.write(writing, str(pid()).encode())
        os._exit(0)
    os.waitpid(forked, 0)
    assert int(os.read(reading, 100)) != mine and pid() == mine
    os.close(reading)
    os.close(writing)


def test_the_child_ends_with_its_parent() -> None:
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.write(writing, str(pid()).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(forked, 0)
    handle = None
    try:
        handle = os.pidfd_open(int(os.read(reading, 100)))
    except ProcessLookupError:
        pass
    else:
        import select

        assert select.select([handle], [], [], HUNG)[0]
    finally:
        for one in (reading, writing, *([handle] if handle is not None else [])):
            os.close(one)
    assert limited.call_limited is call_limited


def test_a_child_that_was_waited_for_is_not_killed_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    child = child_process._Child()
    child._process.kill()
    child._process.wait()
    for name in ("pidfd_open", "kill", "killpg"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("it may be another's"))
    assert child.stop() == "crashed its process with SIGKILL"


def test_a_child_is_killed_where_a_process_has_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    child = child_process._Child()
    giving_up = threading.Timer(HUNG, child._process.terminate)
    giving_up.start()
    assert child.stop() == "crashed its process with SIGKILL"
    giving_up.cancel()


def test_a_request_of_a_thread_ends_when_the_block_that_it_works_for_raises() -> None:
    commands = CommandGroup()
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117 - the pool ends within.
        with ThreadPoolExecutor(1, initializer=commands.join) as beside, commands:
            asked = beside.submit(do, sleep=300)
            while not commands._running:
                time.sleep(0.01)
            raise KeyboardInterrupt
    with pytest.raises((LimitMet, EnvironmentLacking)):
        asked.result()
    assert do(plain=1) == [{"plain": 1}, 0], "the next one has another child"
