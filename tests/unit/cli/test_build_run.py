"""What a command builds counts as the work of the program that the command began with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import recipes, snapshots
from pipeline.cli import build_run
from pipeline.cli.app import CommandContext
from pipeline.cli.build_run import ToldBuild
from pipeline.progress import QUIET

COMMAND: Any = importlib.import_module("pipeline.cli.commands.build")
"""The module of the command, whose function has another name."""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[list[dict[str, Any]], list[Any]]]:
    """Return a function that builds two requests; it returns how each was loaded, and with what it was built."""
    loaded: list[dict[str, Any]] = []
    built: list[Any] = []
    real = recipes.loading_documents

    def load(*given: Any, **more: Any) -> object:
        loaded.append(more)
        return real(*given, **more)

    def run(*_: object, **more: Any) -> ToldBuild:
        built.append(more["started"])
        return ToldBuild((), (), ())

    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(recipes, "loading_documents", load)
    monkeypatch.setattr(build_run, "run_build", run)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("")

    def act() -> tuple[list[dict[str, Any]], list[Any]]:
        command = importlib.import_module("pipeline.cli.commands.build")
        status = command.build_command(
            CommandContext(QUIET, store=tmp_path / "store"),
            recipes=[str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")],
            output=tmp_path / "out",
            compression="gzip",
            **dict.fromkeys(("platform", "repositories", "archive", "runtime", "launcher")),
            **dict.fromkeys(("upgrade", "offline", "full"), False),
            arch=[],
        )
        assert status == 0
        return loaded, built

    return act


Build = Callable[[], tuple[list[dict[str, Any]], list[Any]]]


def test_recipes_and_builds_are_of_the_program_that_the_process_began_with(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command builds several requests one after the other; the program may be changed between them."""
    monkeypatch.setattr(snapshots, "process_started", lambda now: now - 1000)
    loaded, built = build()
    assert [one["started"] for one in loaded] == built
    clock = CommandContext(QUIET).clock()
    assert [clock - one for one in built] == pytest.approx([1000, 1000], abs=30)


def test_a_child_reads_the_first_recipe_alone(build: Build) -> None:
    """After a build there are threads and pipes that a copy of the process would share."""
    loaded, _ = build()
    assert [one["forked"] for one in loaded] == [True, False]


def test_a_request_of_which_nothing_changed_has_no_child(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads no recipe at all, and the next one is the first that does."""
    known: list[Any] = [type("Known", (), {"answer": {"name": "a"}})(), None]
    monkeypatch.setattr(COMMAND, "repeat_build", lambda *_: known.pop(0))
    loaded, _ = build()
    assert [one["forked"] for one in loaded] == [True]
