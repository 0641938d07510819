"""A build whose packages are unpacked by a forked child too is as any other, whatever happens to the child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.leftover_check import left_since, snapshot
from tests.support.patience import HUNG
from tests.support.product_builds import RECIPE, small_products
from tests.support.rpm_factory import Forge
from tests.support.source import ROOT

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


@dataclass(frozen=True, slots=True)
class Builder:
    """A small product, built by the command line; each store knows nothing yet."""

    folder: Path

    def begin(self, child: str, store: str) -> subprocess.Popen[str]:
        environment = {
            **{name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPYCACHEPREFIX") if name in os.environ},
            **{"PYTHONPATH": str(ROOT), "RELBUILD_STORE": str(self.folder / store), "FORKS": str(self.forks)},
            **{"RELBUILD_OUTPUT": str(self.folder / "output"), "PLACED": str(self.placed)},
        }
        self.forks.write_text("")
        self.placed.write_text("")
        words = [child, "build", "--no-smoke", "--json", "--progress", "none", "small.yaml"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-c", _RUN, *words],
            env=environment,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            **pipes,
        )

    def build(self, child: str, store: str) -> str:
        """Build, and return the image's digest."""
        with self.begin(child, store) as running:
            out, err = running.communicate(timeout=HUNG)
        assert running.returncode == 0, err
        assert [number for number in self.children() if Path("/proc", number).exists()] == []
        digest: str = json.loads(out)["built"][0]["digest"]
        return digest

    def children(self) -> list[str]:
        """Return the numbers of the processes that were forked."""
        return self.forks.read_text().split()

    @property
    def forks(self) -> Path:
        return self.folder / "forks"

    @property
    def placed(self) -> Path:
        return self.folder / "placed"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> Builder:
    folder = tmp_path_factory.mktemp("unpacking")
    small_products(folder, made)
    words = {"name": "small", "version": "1.0", "note": "", "expected": "1\\\\.0", "mode": "0644"}
    (folder / "small.yaml").write_text(RECIPE % words)
    return Builder(folder)


def test_the_image_is_the_same_whoever_unpacks(builder: Builder) -> None:
    """This process alone, with a child, or after a child that was killed.

    The command has one thread when it forks: else it would do without a child, and nobody would see it.
    """
    alone = builder.build("none", "none")
    assert builder.children() == [] and not builder.placed.stat().st_size
    assert builder.build("works", "works") == alone
    assert len(builder.children()) == 1 and builder.placed.stat().st_size >= 1
    assert builder.build("killed", "killed") == alone
    assert len(builder.children()) == 1 and builder.placed.stat().st_size == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_child_ends_with_a_build_that_is_ended(builder: Builder, number: signal.Signals) -> None:
    before = snapshot(builder.folder)
    with builder.begin("waiting", number.name) as running:
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
    assert builder.build("works", number.name) == builder.build("works", "other")
    assert not [one for one in left_since(before) if "process" in one]


def _state(number: str) -> str:
    try:
        return Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
