"""Errors name a recipe's files as the command line does; the library names them relative to the recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.recipe_place import naming_files, with_check_paths
from pipeline.errors import Problem, RecipeError
from pipeline.model.checks import CheckKind
from pipeline.model.smoke import Check, Expectation
from pipeline.recipes import load_recipe
from pipeline.smoke import plan_digest
from tests.support.builds import DEMO_RECIPE
from tests.support.tested_images import image, report

TESTED = report(image())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/demo.yaml", "recipes/part/more.yaml", "platforms/local.yaml", "platforms/os.repo"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def told(place: str | None, recipe: Path, repositories: Path = Path("platforms/local.yaml")) -> str | None:
    with pytest.raises(RecipeError) as caught, naming_files(recipe, repositories):
        raise RecipeError.of([Problem("other", "of nothing"), Problem("some", "is wrong", place, "a way out")])
    first, second = caught.value.problems
    assert first == Problem("other", "of nothing") and (second.message, second.hint) == ("is wrong", "a way out")
    return second.place


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("demo.yaml:12: layers[0]", "recipes/demo.yaml:12: layers[0]"),
        ("demo.yaml:9:1", "recipes/demo.yaml:9:1"),
        ("demo.yaml", "recipes/demo.yaml"),
        ("part/more.yaml:3: files", "recipes/part/more.yaml:3: files"),
        ("local.yaml:7: platforms.local", "platforms/local.yaml:7: platforms.local"),
        ("os.repo:2: [base]", "platforms/os.repo:2: [base]"),
    ],
)
def test_a_place_in_a_document_has_the_path_to_it(place: str, shown: str) -> None:
    assert told(place, Path("recipes/demo.yaml")) == shown


def test_a_repo_file_is_the_platforms_own_where_the_recipe_has_one_of_that_name() -> None:
    Path("recipes/os.repo").touch()
    assert told("os.repo:2: [base]", Path("recipes/demo.yaml")) == "platforms/os.repo:2: [base]"


@pytest.mark.parametrize("place", [None, "", "bash", "recipes/demo.yaml:3", "gone.yaml:1", "/etc/x.yaml:1", "part"])
def test_other_places_are_as_they_were(place: str | None) -> None:
    assert told(place, Path("recipes/demo.yaml")) == place


def test_the_path_is_the_one_that_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told("demo.yaml:1", folder / "recipes/demo.yaml") == f"{folder}/recipes/demo.yaml:1"
    monkeypatch.chdir(folder / "recipes")
    assert told("demo.yaml:1", Path("demo.yaml")) == "demo.yaml:1"
    monkeypatch.chdir(folder / "platforms")
    assert told("demo.yaml:1", Path("../recipes/demo.yaml")) == "../recipes/demo.yaml:1"


def test_the_checks_of_a_report_have_the_paths_that_were_given() -> None:
    port = CheckKind("port")
    ready = Check("ready", port, 1000, Expectation(exit_code=None), port=80, place="demo.yaml:7")
    places = ("part/more.yaml:3: smoke.checks[0]", "")
    others = tuple(replace(ready, name=f"{number}", place=place) for number, place in enumerate(places))
    plan = replace(TESTED.asked, ready=ready, checks=others)
    report = replace(TESTED, asked=plan)
    named = with_check_paths(report, Path("recipes/demo.yaml"), Path("platforms/local.yaml")).asked
    assert named.ready is not None and named.ready.place == "recipes/demo.yaml:7"
    assert [one.place for one in named.checks] == ["recipes/part/more.yaml:3: smoke.checks[0]", ""]
    assert plan_digest(named) == plan_digest(plan)


def test_what_is_kept_of_a_recipe_names_no_folder(folder: Path) -> None:
    """The same recipe elsewhere is the same: its places are relative to its own folder."""
    Path("recipes/demo.yaml").write_text(DEMO_RECIPE)
    with naming_files(Path("recipes/demo.yaml"), Path("recipes/repositories.yaml")):
        recipe = load_recipe(Path("recipes/demo.yaml"))
    assert recipe.layers[0].requests[0].place == "demo.yaml:5: layers[0].packages[0]"
