"""A function is computed in a forked child; where that fails there is no result, and no trace of the child."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pipeline import forked_call as module
from pipeline import forked_child
from pipeline.forked_call import ForkedCall, forked_call
from pipeline.limited import call_limited
from pipeline.process import start
from tests.support.patience import HUNG


@pytest.fixture(autouse=True)
def several_processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have two processors and one thread, as a command has at its start; leave no child behind.

    A child of a machine with other work has the time that it needs.
    """
    monkeypatch.setattr(forked_child, "usable_processors", lambda: 2.0)
    monkeypatch.setattr(module, "ANSWER_DEADLINE", HUNG)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] if path == "/proc/self/task" else listed(path))
    before = children()
    yield
    assert children() - before == set()


def children() -> set[str]:
    """Return the numbers of this process's children, zombies too."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def has_child(call: ForkedCall) -> bool:
    return call.has_child


def computed(compute: Callable[[], object]) -> object:
    """Return the result of a child's computation."""
    with forked_call(compute) as call:
        assert has_child(call)
        return call.result()


@pytest.mark.parametrize("value", [{"a": [1, None, "é\udcff"]}, "x" * (3 << 20), [], 0])
def test_the_result_is_what_the_child_computed(value: object) -> None:
    """Also one that is larger than a pipe."""
    assert computed(lambda: value) == value


def test_the_child_is_another_process_that_has_what_this_one_has() -> None:
    kept = {"one": 1}
    number, seen = computed(lambda: [os.getpid(), kept])  # type: ignore[misc]
    assert number != os.getpid() and seen == kept


def test_the_block_runs_while_the_child_computes(tmp_path: Path) -> None:
    def compute() -> str:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return "done"

    with forked_call(compute) as call:
        assert call.is_running
        (tmp_path / "go").touch()
        while call.is_running:
            time.sleep(0.01)
        assert call.result() == "done"
        assert not has_child(call)
        assert call.result() is None, "it is had once"


def _raise(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    "compute",
    [
        lambda: _raise(ValueError("refused")),
        lambda: _raise(KeyboardInterrupt()),
        lambda: _raise(SystemExit(0)),
        lambda: _raise(MemoryError()),
        object,
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        os.abort,
        lambda: os._exit(0),
        lambda: print("said"),
        lambda: sys.stderr.write("said"),
        lambda: warnings.warn("said", stacklevel=1),
        lambda: start(["true"]).wait(),
        lambda: call_limited("pipeline.render.template_child", {}),
    ],
    ids=[
        *("error", "interrupt", "exit", "memory", "no JSON", "killed", "crashed", "gone"),
        *("out", "err", "warning", "command", "limited"),
    ],
)
def test_a_child_that_fails_has_no_result(compute: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> None:
    """Nor does it say anything: the caller computes it, and says it then."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, *_: sys.stderr.write(str(text))  # pytest's own records them.
        assert computed(compute) is None
    assert capfd.readouterr() == ("", "")


def test_a_result_cut_short_is_none() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, module._LENGTH.pack(100) + b"[1")
        os._exit(0)
    os.close(writer)
    assert ForkedCall(pid, reader).result() is None


def test_a_child_whose_parent_ended_before_it_could_be_told_of_that_computes_nothing(tmp_path: Path) -> None:
    """Nobody would end it: the system tells it only of an end that comes later."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        forked_child.run_child((tmp_path / "begun").touch, (writer,), parent=os.getpid())
    os.close(writer)
    assert ForkedCall(pid, reader).result() is None
    assert not (tmp_path / "begun").exists()


def test_a_large_result_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SIZE_LIMIT", 1 << 20)
    assert computed(lambda: "x" * (1 << 20)) is None
    assert computed(lambda: "x" * (1 << 19)) == "x" * (1 << 19)


def test_a_child_that_does_not_answer_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_DEADLINE", 0.05)
    assert computed(lambda: time.sleep(600)) is None


def test_a_stopped_child_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_DEADLINE", 0.05)
    assert computed(lambda: os.kill(os.getpid(), signal.SIGSTOP)) is None


def test_the_child_ends_with_the_block() -> None:
    with forked_call(lambda: time.sleep(600)) as call:
        assert call.is_running
        number = call._pid
    assert not Path(f"/proc/{number}").exists()


def test_the_child_ends_with_a_block_that_raises() -> None:
    with pytest.raises(LookupError), forked_call(lambda: time.sleep(600)) as call:
        number = call._pid
        raise LookupError
    assert not Path(f"/proc/{number}").exists()


@pytest.mark.parametrize("place", ["before it", "before signals are held", "when they are held"])
def test_a_second_signal_leaves_no_child(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It comes while the first one's exception ends the block: its handler raises at that place."""
    mask, real, end, came = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.pthread_sigmask, ForkedCall.end, []

    def raised_once(now: bool) -> None:
        if now and not came:
            came.append(place)
            raise KeyboardInterrupt

    def ended(call: ForkedCall) -> None:
        raised_once(place == "before it")
        end(call)

    def masked(how: int, numbers: Iterable[int]) -> set[int | signal.Signals]:
        held = how == signal.SIG_BLOCK and bool(numbers)
        raised_once(held and place == "before signals are held")
        before = real(how, numbers)
        raised_once(held and place == "when they are held")
        return before

    with pytest.raises(KeyboardInterrupt), forked_call(lambda: time.sleep(600)) as call:
        number = call._pid
        monkeypatch.setattr(ForkedCall, "end", ended)
        monkeypatch.setattr(signal, "pthread_sigmask", masked)
        raise LookupError
    assert came and not Path(f"/proc/{number}").exists()
    assert real(signal.SIG_BLOCK, ()) == mask


def test_signals_are_of_this_process_alone() -> None:
    """A terminal sends Ctrl-C to both. The mask of this process is afterwards what it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def compute() -> object:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return "still here"

    assert computed(compute) == "still here"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_child_has_no_descriptor_of_this_process(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        handle = file.fileno()

        def compute() -> object:
            try:
                os.fstat(handle)
            except OSError:
                return [str(Path(f"/proc/self/fd/{one}").readlink()) for one in range(3)]
            return "open"

        assert computed(compute) == [os.devnull] * 3
        file.write("x")


@pytest.mark.parametrize("change", ["processors", "threads", "children unwaited", "no /proc", "no pipe", "no child"])
def test_there_is_no_child_where_it_would_not_help_or_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    opened = list(Path("/proc/self/fd").iterdir())
    with monkeypatch.context() as patched:
        match change:
            case "processors":
                patched.setattr(forked_child, "usable_processors", lambda: 1.0)
            case "threads":
                patched.setattr(os, "listdir", lambda _: ["1", "2"])
            case "children unwaited":
                patched.setattr(signal, "getsignal", lambda number: number == signal.SIGCHLD and signal.SIG_IGN)
            case "no /proc":
                patched.setattr(os, "listdir", refuse)
            case "no pipe":
                patched.setattr(os, "pipe", refuse)
            case _:
                patched.setattr(os, "fork", refuse)
        with forked_call(lambda: pytest.fail("it is computed")) as call:
            assert not has_child(call) and not call.is_running
            assert call.result() is None
    assert list(Path("/proc/self/fd").iterdir()) == opened


def test_threads_are_counted_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of libraries too."""
    monkeypatch.undo()
    monkeypatch.setattr(forked_child, "usable_processors", lambda: 2.0)
    wait = threading.Event()
    other = threading.Thread(target=wait.wait)
    other.start()
    with forked_call(lambda: 1) as call:
        assert not has_child(call)
    wait.set()
    other.join()


_PROGRAM = """
import atexit, os, signal, sys, time
from pipeline import forked_call as module
from pipeline import forked_child
from pipeline.forked_call import forked_call
class Freed:
    def __del__(self, write=os.write): write(2, b"freed ")
atexit.register(os.write, 2, b"exit ")
freed = Freed()
sys.stdout.write("buffered ")
forked_child.usable_processors = lambda: 2.0
module.ANSWER_DEADLINE = HUNG
with forked_call(lambda: COMPUTE) as call:
    END
"""


def _program(compute: str, end: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM.replace("HUNG", str(HUNG)).replace("COMPUTE", compute).replace("END", end)]


@pytest.mark.parametrize("compute", ["1", "1 / 0", "print('x' * 10000)"])
def test_nothing_is_flushed_freed_or_called_twice(compute: str) -> None:
    words = _program(compute, "print(call.result())")
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=HUNG)
    assert done.stdout == ("buffered 1\n" if compute == "1" else "buffered None\n")
    assert done.stderr == "exit freed "


def test_no_other_process_is_killed_where_children_are_not_waited_for() -> None:
    """SIGCHLD is ignored by who starts it: a child's number is free as soon as it has ended."""
    words = _program("time.sleep(600)", "print(call.has_child)")
    ignoring = ["bash", "-c", 'trap "" CHLD; exec "$@"', "-", *words]
    done = subprocess.run(ignoring, capture_output=True, text=True, check=True, timeout=HUNG)
    assert done.stdout == "buffered False\n"


def test_the_child_ends_when_its_parent_is_killed() -> None:
    words = _program("time.sleep(600)", "print(call._pid, flush=True); time.sleep(600)")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        child = int(running.stdout.readline().split()[-1])
        status = Path(f"/proc/{child}/stat")
        assert status.exists()
        running.kill()
    until = time.monotonic() + HUNG
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # Somebody has waited for it.
        while status.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < until
            time.sleep(0.01)
    with contextlib.suppress(ChildProcessError):  # It is this process's where system tests made that a subreaper.
        os.waitpid(child, 0)


def test_warnings_as_errors_do_not_keep_it_from_working() -> None:
    """Python 3.12 warns of a fork where there are threads; there is none."""
    text = "from pipeline.forked_call import forked_call\nwith forked_call(lambda: 1) as call: print(call.result())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout in ("1\n", "None\n"), "None where one processor may be used"
    assert done.stderr == ""
