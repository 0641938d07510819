"""A build whose recipe is read by a child process is as any other, whatever happens to the child."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.build.early_imports import USED_LATER
from tests.support.forking_builds import ForkingBuilder, forking_builder
from tests.support.leftover_check import processes_since, snapshot
from tests.support.patience import HUNG
from tests.support.rpm_factory import Forge

_CHECK = '    - {name: counts, file: {path: /etc/version, text: "%s"}}\n'
_COUNTED = _CHECK % "{{ 1 * 1 }}.0"
"""What is evaluated by a process with limits, which the child that reads does not start."""
_ENDLESS = _CHECK % (
    "{% set n = namespace(a=[1], b=[1]) %}"
    "{% for i in range(40) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
)

_RUN = """
import os, signal, sys, time
import pipeline.processors
pipeline.processors._quotas = lambda: ()
parent, fork, child = os.getpid(), os.fork, sys.argv.pop(1)
if child == "none":
    os.sched_getaffinity = lambda _: {0}
else:
    os.sched_getaffinity = lambda _: {0, 1}
def forked():
    number = fork()
    if os.getppid() == parent and number == 0:
        if child == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif child == "waiting":
            time.sleep(600)
    elif os.getpid() == parent:
        with open(os.environ["FORKS"], "a") as file:
            file.write(f"{number}\\n")
    return number
os.fork = forked
def told():
    if os.getpid() == parent:
        with open(os.environ["MODULES"], "w") as file:
            file.write(" ".join(sys.modules))
from pipeline.cli import main
try:
    main()
finally:
    told()
"""


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> ForkingBuilder:
    return forking_builder(tmp_path_factory.mktemp("beside"), made, _RUN)


def test_the_image_is_the_same_whoever_read_the_recipe(builder: ForkingBuilder) -> None:
    """A child, the process itself, or it after a child that was killed."""
    builder.write("one")
    digests = set()
    for child, forks in (("read", 1), ("none", 0), ("killed", 1)):
        status, answer, said = builder.build(child, f"store-{child}", "one.yaml")
        assert (status, len(builder.children())) == (0, forks)
        digests.add(answer["built"][0]["digest"])
        assert "error" not in said and "warning" not in said
    assert len(digests) == 1


def test_what_is_imported_early_is_what_a_build_from_nothing_imports(builder: ForkingBuilder) -> None:
    builder.write("all")
    assert builder.build("none", "store-all", "all.yaml")[0] == 0
    assert set(USED_LATER) <= set(builder.modules.read_text().split())


def test_who_has_a_child_loads_nothing_that_reads_recipes(builder: ForkingBuilder) -> None:
    builder.write("light")
    assert builder.build("read", "store-light", "light.yaml")[0] == 0
    loaded = set(builder.modules.read_text().split())
    assert not loaded & {"pydantic", "yaml", "pipeline.recipes.merge", "pipeline.recipes.schema"}


def test_what_is_unchanged_or_remembered_needs_no_child(builder: ForkingBuilder) -> None:
    builder.write("two")
    for words, forks in (((), 1), ((), 0), (("--upgrade",), 0), (("--compression", "zstd"), 0)):
        assert builder.build("read", "store-two", "two.yaml", *words)[0] == 0
        assert len(builder.children()) == forks


def test_one_child_reads_the_first_of_several_recipes(builder: ForkingBuilder) -> None:
    for name in ("three", "four"):
        builder.write(name)
    status, answer, _ = builder.build("read", "store-several", "three.yaml", "four.yaml")
    assert (status, len(answer["built"]), len(builder.children())) == (0, 2, 1)


def test_an_invalid_recipe_has_its_errors_once(builder: ForkingBuilder) -> None:
    builder.write("wrong", "nonsense: 1\nexclude: {}\n")
    told = [builder.build(child, f"store-wrong-{child}", "wrong.yaml") for child in ("read", "none", "killed")]
    assert told[0] == told[1] == told[2]
    assert told[0][0] == 3
    assert told[0][2].count("nonsense") == told[1][2].count("nonsense") > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_child_reads_ends_both_with_one_line(
    builder: ForkingBuilder, number: signal.Signals
) -> None:
    """A terminal sends it to both."""
    builder.write("five")
    with builder.begin("waiting", f"store-{number.name}", "five.yaml") as running:
        until = time.monotonic() + HUNG
        while not builder.children():
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=HUNG)
    assert running.returncode == 128 + number
    assert out == "" and len(err.splitlines()) == 1 and "nothing was published" in err
    assert not Path("/proc", builder.children()[0]).exists()


@pytest.mark.parametrize("reader", ["child", "parent"])
def test_nothing_is_left_of_a_build_whose_recipe_is_evaluated(builder: ForkingBuilder, reader: str) -> None:
    """Nor do the builds after it have a child: what was read is remembered, whoever has read it."""
    more = _CHECK % "{{ 0 + 1 }}.0" if reader == "child" else _COUNTED
    before = snapshot(builder.folder)
    builder.write("six", more)
    for forks in (1, 0):
        status, _, said = builder.build("read", f"store-read-by-{reader}", "six.yaml", "--upgrade")
        assert (status, len(builder.children())) == (0, forks)
        assert "error" not in said
        loaded = set(builder.modules.read_text().split())
        assert ("pydantic" in loaded) == (forks == 1 and reader == "parent")
    assert not processes_since(before, within=HUNG)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_an_evaluation_that_is_interrupted(builder: ForkingBuilder, number: signal.Signals) -> None:
    builder.write("seven", _ENDLESS)
    before = snapshot(builder.folder)
    with builder.begin("read", f"store-endless-{number.name}", "seven.yaml") as running:
        until = time.monotonic() + HUNG
        while not any("limited/child.py" in one for one in processes_since(before, within=0)):
            assert time.monotonic() < until
        time.sleep(0.5)
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=HUNG)
    assert running.returncode == 128 + number
    assert out == "" and len(err.splitlines()) == 1
    assert not processes_since(before, within=HUNG)
