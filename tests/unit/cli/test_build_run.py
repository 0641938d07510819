"""What a command builds counts as the work of the program that the command began with."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import recipes, snapshots
from pipeline.cli import build_run
from pipeline.cli.app import CommandContext
from pipeline.cli.build_run import ToldBuild
from pipeline.errors import RecipeError
from pipeline.progress import QUIET
from tests.support.builds import DEMO_PLATFORMS, DEMO_RECIPE
from tests.support.typed_command import run_typed

COMMAND: Any = importlib.import_module("pipeline.cli.commands.build")
"""The module of the command, whose function has another name."""


def write_recipes(folder: Path, **names: str) -> None:
    """Write a recipe of the product for each name of a file, and their platform."""
    for file, product in names.items():
        (folder / f"{file}.yaml").write_text(DEMO_RECIPE.replace("demo", product))
    (folder / "repositories.yaml").write_text(DEMO_PLATFORMS)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[dict[str, Any]], list[Any]]]:
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
    write_recipes(tmp_path, a="a", b="b")

    def act(*names: str) -> tuple[list[dict[str, Any]], list[Any]]:
        command = importlib.import_module("pipeline.cli.commands.build")
        status = command.build_command(
            CommandContext(QUIET, store=tmp_path / "store"),
            recipes=[str(tmp_path / f"{name}.yaml") for name in names or ("a", "b")],
            output=tmp_path / "out",
            compression="gzip",
            **dict.fromkeys(("platform", "repositories", "archive", "runtime", "launcher")),
            **dict.fromkeys(("upgrade", "offline", "full"), False),
            arch=[],
        )
        assert status == 0
        return loaded, built

    return act


Build = Callable[..., tuple[list[dict[str, Any]], list[Any]]]


def test_recipes_and_builds_are_of_the_program_that_the_process_began_with(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command builds several requests one after the other; the program may be changed between them."""
    monkeypatch.setattr(snapshots, "process_started", lambda now: now - 1000)
    loaded, built = build()
    started = [one["started"] for one in loaded]
    assert started[2:] == built  # Both were read before, for their names.
    clock = CommandContext(QUIET).clock()
    assert [clock - one for one in started] == pytest.approx([1000] * 4, abs=30)


def test_a_child_reads_the_first_recipe(build: Build) -> None:
    """Of several all are read before one is built; when the first was, there are threads and pipes."""
    assert [one["forked"] for one in build("a")[0]] == [True]
    assert [one["forked"] for one in build()[0][1:]] == [True, False, False, False]


def test_requests_of_which_nothing_changed_load_no_recipe(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to compare the names of several."""
    known = type("Known", (), {"answer": {"name": "a"}})()
    monkeypatch.setattr(COMMAND, "repeat_build", lambda *_: known)
    monkeypatch.setattr(recipes, "loading_documents", lambda *_, **__: pytest.fail("a recipe was loaded"))
    assert build() == ([], [])


def test_two_recipes_of_one_product_are_refused_before_one_is_built(build: Build, tmp_path: Path) -> None:
    """The layout of one would replace the other's, or that of its parent."""
    write_recipes(tmp_path, b="a")
    with pytest.raises(RecipeError) as caught:
        build()
    (problem,) = caught.value.problems
    assert (caught.value.code, problem.place) == ("name-twice", str(tmp_path / "b.yaml"))
    assert all(str(tmp_path / name) in problem.message for name in ("a.yaml", "b.yaml"))
    write_recipes(tmp_path, b="b", c="a")
    (tmp_path / "b.yaml").write_text("name: b\nversion: '1'\nfrom: c\n")
    with pytest.raises(RecipeError, match="several recipes have the name 'a'"):
        build()
    assert len(build("b", "b", "c")[1]) == 3, "a recipe that is named twice, and a parent that is named too"


def test_an_error_in_the_second_recipe_is_told_before_the_first_is_built(build: Build, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("nosuch: 1\n")
    with pytest.raises(RecipeError) as caught:
        build()
    assert caught.value.problems[0].place == f"{tmp_path / 'b.yaml'}:1: nosuch"


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_an_error_in_json_comes_with_what_was_built_before_it(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(request: Any, *_: object, **__: object) -> ToldBuild:
        if request.recipe.stem == failing:
            raise RecipeError("recipe-missing", "lost meanwhile")
        index = ({"name": "b"},) if request.recipe.stem == "b" else ()
        return ToldBuild(({"name": request.recipe.stem},), index, ())

    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(build_run, "run_build", run)
    write_recipes(tmp_path, a="a", b="b", c="c")
    recipes = " ".join(str(tmp_path / f"{name}.yaml") for name in "abc")
    assert run_typed(f"build {recipes} --output {tmp_path}/out --json --progress none", monkeypatch) == 3
    value = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in value.pop("error")] == ["recipe-missing"] and value.pop("exit_code") == 3
    finished: dict[str, dict[str, object]] = {
        "a": {},
        "b": {"built": [{"name": "a"}]},
        "c": {"built": [{"name": "a"}, {"name": "b"}], "indexes": [{"name": "b"}]},
    }
    assert value == finished[failing]
