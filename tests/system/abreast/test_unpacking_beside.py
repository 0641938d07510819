"""A build whose packages are unpacked by a forked child too is as any other, whatever happens to the child."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.forking_builds import ForkingBuilder, forking_builder
from tests.support.leftover_check import processes_since, snapshot
from tests.support.patience import HUNG
from tests.support.rpm_factory import Forge
from tests.support.source import ROOT
from tests.support.terminal import run_in_terminal

_RUN = """
import os, signal, sys, time
import pipeline.processors
from pipeline.layers import unpacking_children as module
pipeline.processors._quotas = lambda: ()
os.sched_getaffinity = lambda _: {0, 1}
module._WORTHWHILE = 0
parent, child = os.getpid(), sys.argv.pop(1)
if child == "none":
    module._MOST = 0
forked = module.fork_child
def fork(*given):
    number = forked(*given)
    with open(os.environ["FORKS"], "a") as file:
        file.write(f"{number}\\n")
    return number
module.fork_child = fork
place = module._Telling.place
def placed(*given):
    with open(os.environ["PLACED"], "a") as file:
        file.write("x")
        count = file.tell()
    if child == "killed" and count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if child == "waiting" and count == 1:
        time.sleep(600)
    place(*given)
module._Telling.place = placed
from pipeline.cli import main
main()
"""
_WORDS = ("--progress", "none", "small.yaml")


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> ForkingBuilder:
    builder = forking_builder(tmp_path_factory.mktemp("unpacking"), made, _RUN)
    builder.write("small")
    return builder


def test_the_image_is_the_same_whoever_unpacks(builder: ForkingBuilder) -> None:
    """This process alone, with a child, or after a child that was killed.

    The command has one thread when it forks: else it would do without a child, and nobody would see it.
    """
    alone = builder.digest("none", "none", *_WORDS)
    assert builder.children() == [] and not builder.placed.stat().st_size
    assert builder.digest("works", "works", *_WORDS) == alone
    assert len(builder.children()) == 1 and builder.placed.stat().st_size >= 1
    assert builder.digest("killed", "killed", *_WORDS) == alone
    assert len(builder.children()) == 1 and builder.placed.stat().st_size == 1


def test_a_terminal_has_a_child_too(builder: ForkingBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that draws ends for the time of the fork, and the bars go on afterwards."""
    alone = builder.digest("none", "none", *_WORDS)
    monkeypatch.setenv("FORKS", str(builder.forks))
    monkeypatch.setenv("PLACED", str(builder.placed))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folders = ("--store", builder.folder / "drawn", "--output", builder.folder / "output")
    ended = run_in_terminal(_RUN, "works", "build", "--no-smoke", *folders, builder.folder / "small.yaml")
    assert ended.status == 0 and ended.screen.has_cursor, ended.screen.lines
    assert any("✓" in line for line in ended.screen.lines)
    assert any(alone in line for line in ended.screen.lines), ended.screen.lines
    (child,) = builder.children()
    assert not Path("/proc", child).exists() and builder.placed.stat().st_size >= 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_child_ends_with_a_build_that_is_ended(builder: ForkingBuilder, number: signal.Signals) -> None:
    before = snapshot(builder.folder)
    with builder.begin("waiting", number.name, *_WORDS) as running:
        until = time.monotonic() + HUNG
        while builder.placed.stat().st_size < 1:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        (child,) = builder.children()
        running.send_signal(number)
        running.communicate(timeout=HUNG)
    while Path("/proc", child).exists() and _state(child) != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert builder.digest("works", number.name, *_WORDS) == builder.digest("works", "other", *_WORDS)
    assert not processes_since(before, within=HUNG)


def _state(number: str) -> str:
    try:
        return Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
