"""The pipe that a command of the shell's container reads: found through /proc, and nothing else is opened."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.sandbox import command_input
from pipeline.sandbox.command_input import CommandInput
from tests.support.patience import HUNG

PATIENCE = HUNG
"""Seconds of looks for a command that comes to its gate."""


class Group:
    """A control group with these processes."""

    def __init__(self, *processes: int, tasks: int | None = None) -> None:
        self.found, self.tasks = set(processes), tasks

    def processes(self) -> set[int]:
        return set(self.found)

    def number(self, controller: str, file: str) -> int:
        return len(self.found) if self.tasks is None else self.tasks


@contextmanager
def process_reading(stdin: int) -> Iterator[int]:
    """Run a process that has this as its standard input."""
    with subprocess.Popen(["sleep", "60"], stdin=stdin) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def shell() -> Iterator[int]:
    """A process in the place of the shell."""
    with process_reading(subprocess.PIPE) as pid:
        yield pid


@pytest.fixture
def told() -> Iterator[int]:
    """The end of the shell's output, on which nothing comes."""
    read_end, write_end = os.pipe()
    yield read_end
    os.close(read_end)
    os.close(write_end)


def test_what_is_no_anonymous_pipe_is_not_opened(tmp_path: Path, shell: int) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "file", tmp_path / "fifo", Path("/dev/null")):
        handle = os.open(path, os.O_RDWR)
        with process_reading(handle) as pid:
            assert command_input._pipe_of(pid, shell) is None
        os.close(handle)
    assert command_input._pipe_of(shell, shell) is None, "the shell's own"
    assert command_input._pipe_of(1 << 30, shell) is None, "no such process"
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_pipe_is_opened_and_written_as_much_as_it_takes(shell: int, told: int, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)  # As the first command of the pipeline has ended.
    data = os.urandom(200_000)
    gate = tmp_path / "gate"
    with process_reading(read_end) as pid, CommandInput(gate, data) as given:
        reader = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
        assert given.begin(Group(shell, pid), shell, told, PATIENCE)  # type: ignore[arg-type]
        read = b""
        while given.write_once():
            read += os.read(read_end, 1 << 20)
        given.close()
        while piece := os.read(read_end, 1 << 20):
            read += piece
        assert read == data
        os.close(reader)
    os.close(read_end)
    assert not gate.exists()


def test_a_reader_that_is_gone_ends_the_writing(shell: int, told: int, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    with CommandInput(tmp_path / "gate", b"x" * 200_000) as given:
        reader = os.open(tmp_path / "gate", os.O_RDONLY | os.O_NONBLOCK)
        with process_reading(read_end) as pid:
            assert given.begin(Group(shell, pid), shell, told, PATIENCE)  # type: ignore[arg-type]
        os.close(read_end)
        assert not given.write_once()
        os.close(reader)


@pytest.mark.parametrize(
    "case", ["more tasks", "a third process", "no process", "no gate", "the shell spoke", "changes"]
)
def test_a_command_that_is_not_alone_at_its_gate_does_not_begin(
    case: str, shell: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    end = os.open(tmp_path, os.O_RDONLY)
    with process_reading(read_end) as pid, CommandInput(tmp_path / "gate", b"x") as given:
        group = {
            "more tasks": Group(shell, pid, tasks=3),
            "a third process": Group(shell, pid, 1, tasks=2),
            "no process": Group(shell),
        }.get(case, Group(shell, pid))
        reader = os.open(tmp_path / "gate", os.O_RDONLY | os.O_NONBLOCK) if case != "no gate" else end
        if case == "the shell spoke":
            told = read_end
            os.write(write_end, b"line\n")
        if case == "changes":
            seen = iter([pid, 1])
            monkeypatch.setattr(command_input, "_only_child", lambda *_: next(seen))
        assert not given.begin(group, shell, told, 0.1)  # type: ignore[arg-type]
    for handle in {read_end, write_end, reader, end}:
        os.close(handle)


def test_what_the_pipe_takes_is_in_it_before_the_gate_is_opened(
    shell: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    seen: list[bytes] = []
    monkeypatch.setattr(CommandInput, "_opens_gate", lambda _: not seen.append(os.read(read_end, 100)))
    with process_reading(read_end) as pid, CommandInput(tmp_path / "gate", b"hello\n") as given:
        os.set_blocking(read_end, False)
        assert given.begin(Group(shell, pid), shell, told, PATIENCE)  # type: ignore[arg-type]
        assert seen == [b"hello\n"] and not given.write_once()
    os.close(read_end)


def test_a_command_that_reads_no_more_before_its_gate_is_opened_does_not_begin(
    shell: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    closed, broken = os.pipe()
    os.close(closed)
    monkeypatch.setattr(command_input, "_open_pipe", lambda _: broken)
    monkeypatch.setattr(CommandInput, "_opens_gate", lambda _: pytest.fail("it began"))
    with process_reading(read_end) as pid, CommandInput(tmp_path / "gate", b"x") as given:
        assert not given.begin(Group(shell, pid), shell, told, PATIENCE)  # type: ignore[arg-type]
    os.close(read_end)
    os.close(write_end)


class Pauses:
    """Pauses that take no time, and are counted."""

    def __init__(self) -> None:
        self.sleeps, self.seconds = 0, 0.0

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.seconds += seconds


def test_a_command_that_never_comes_to_its_gate_is_seldom_looked_for_until_patience_is_used_up(
    shell: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses()
    monkeypatch.setattr(command_input, "time", pauses)
    with CommandInput(tmp_path / "gate", b"x") as given:
        assert not given.begin(Group(shell), shell, told, 1.0)  # type: ignore[arg-type]
    assert 10 < pauses.sleeps < 100
    assert 1.0 <= pauses.seconds <= 1.02, "a machine under load takes long to bring a command to its gate"


def test_a_look_that_is_refused_is_the_last(
    shell: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, real = Pauses(), os.stat

    def stat(path: str, *given: object, **more: object) -> os.stat_result:
        if str(path).startswith("/proc/"):
            raise PermissionError
        return real(path, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(command_input, "time", pauses)
    with process_reading(subprocess.DEVNULL) as pid, CommandInput(tmp_path / "gate", b"x") as given:
        monkeypatch.setattr(os, "stat", stat)
        assert not given.begin(Group(shell, pid), shell, told, 1.0)  # type: ignore[arg-type]
    assert pauses.sleeps == 0


def test_a_refused_look_at_a_process_that_is_ending_is_not_the_last(
    shell: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first command of the pipeline, at which only root may look when its memory is gone."""
    real = os.open

    def refuse(path: str, *given: int, **more: int) -> int:
        if str(path).endswith("/fd/0"):
            raise PermissionError
        return real(path, *given, **more)

    with process_reading(subprocess.DEVNULL) as alive, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # It stays a zombie.
        monkeypatch.setattr(os, "open", refuse)
        assert command_input._pipe_of(ended.pid, shell) is None
        with pytest.raises(PermissionError):
            command_input._pipe_of(alive, shell)
        monkeypatch.undo()
    assert command_input._is_ending(1 << 30), "it has gone"
