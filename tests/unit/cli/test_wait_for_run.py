"""The end of `run`: by itself, by a signal, by a request of another command."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from pipeline.cli.commands.run import _logging, wait_for_run
from pipeline.cli.log_follower import Follower
from pipeline.cli.stop_request import StopRequest, stopped_by_signals
from pipeline.instances import HostedInstance
from pipeline.launch import ImageRun
from pipeline.model.usage import Usage
from pipeline.sandbox import Instance

NO_USAGE = Usage(None, None, None, None, None)


@dataclass
class OneInstance:
    """A run of one instance, which ends when it is killed, or is stopped and gets SIGINT."""

    send: tuple[int, ...] = ()
    during_stop: tuple[int, ...] = ()
    name: str = "x-1"
    stop_signal: str = ""
    alive: bool = True
    exit_code: int = 0
    stops: list[float] = field(default_factory=list)
    used: Usage = NO_USAGE

    @property
    def instances(self) -> tuple[OneInstance, ...]:
        return (self,)

    def wait(self, timeout: float) -> bool:
        for number in self.send:
            os.kill(os.getpid(), number)
        return False

    def stop(self, within: Callable[[], float]) -> None:
        self.stops.append(within())
        for number in self.during_stop:
            os.kill(os.getpid(), number)

    def kill(self) -> None:
        self.alive, self.exit_code = False, 137

    def usage(self) -> Usage:
        return self.used


def waited(run: OneInstance, stopping: StopRequest) -> int:
    return wait_for_run(cast(ImageRun, run), shell=False, stopping=stopping, within=2000)


def test_a_second_sigterm_kills_nothing() -> None:
    run = OneInstance(send=(signal.SIGTERM, signal.SIGTERM), during_stop=(signal.SIGTERM,))
    with stopped_by_signals() as stopping:
        assert waited(run, stopping) == 0
    assert run.stops == [2.0]
    assert stopping.number == signal.SIGTERM


def test_a_request_of_another_command_is_no_signal() -> None:
    stopping = StopRequest()
    stopping.ask(0)
    assert waited(OneInstance(), stopping) == 0
    assert stopping.number is None


@pytest.mark.parametrize(
    ("send", "during_stop"),
    [((signal.SIGINT, signal.SIGINT), ()), ((signal.SIGINT,), (signal.SIGINT,)), ((signal.SIGTERM, signal.SIGINT), ())],
)
def test_a_second_ctrl_c_kills_wherever_it_comes(send: tuple[int, ...], during_stop: tuple[int, ...]) -> None:
    run = OneInstance(send=send, during_stop=during_stop)
    with stopped_by_signals() as stopping:
        assert waited(run, stopping) == 137


def test_a_stronger_stop_is_heard_while_a_weaker_one_waits() -> None:
    stopping = StopRequest()
    stopping.ask(60_000)

    class Deaf:
        name, alive, exit_code = "x-1", True, 0

        def usage(self) -> Usage:
            return NO_USAGE

        def stop(self, stop_signal: str, within: float) -> None:
            assert within == 0.0

        def wait(self, timeout: float) -> None:
            stopping.ask(0)

        def kill(self) -> None:
            self.alive, self.exit_code = False, 137

    run = ImageRun((cast(Instance, Deaf()),), ((),), "SIGTERM")
    assert wait_for_run(run, shell=False, stopping=stopping, within=2000) == 137


@pytest.mark.parametrize("killed", [0, 1])
def test_who_was_killed_for_its_memory_is_told_what_to_give(killed: int, capsys: pytest.CaptureFixture[str]) -> None:
    run = OneInstance(alive=False, exit_code=137, used=replace(NO_USAGE, oom_kills=killed))
    stopping = StopRequest()
    stopping.ask(0)
    assert waited(run, stopping) == 137
    why = "; killed: out of memory, give it more with --memory" if killed else ""
    assert capsys.readouterr().err == f"x-1 ended with exit code 137{why}\n"


def test_output_that_can_no_longer_be_shown_is_still_kept() -> None:
    kept: list[bytes] = []

    class ClosedTerminal(Follower):
        def __call__(self, name: str, piece: bytes) -> None:
            raise BrokenPipeError

    hosted = HostedInstance(*cast("tuple[HostedInstance, ...]", (None, None, kept.append, None)))  # type: ignore[arg-type]
    follow = _logging(hosted, ClosedTerminal())
    follow("x-1", b"one")
    follow("x-1", b"two")
    assert kept == [b"one", b"two"]
