"""`--set`: only values that the recipe has, each of the type that it has there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.model.recipe import Recipe
from pipeline.recipes import changed_values, load_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "base.yaml").write_text("values:\n  user: app\n  tuning: {depth: 3, names: [a]}\n")
    (tmp_path / "app.yaml").write_text(
        "name: app\nversion: '1'\nplatform: local\ninclude: [base.yaml]\n"
        "layers: [{name: base, packages: [bash]}]\n"
        "values:\n  size: 128M\n  port: 80\n  share: 0.5\n  fast: true\n  extra: null\n  list: [1, 2]\n"
    )
    return load_recipe(tmp_path / "app.yaml")


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("size=256M", "size", "256M"),
        ("size=a=b c", "size", "a=b c"),
        ("size=true", "size", "true"),
        ("size=", "size", ""),
        ("port=8081", "port", 8081),
        ("share=0.25", "share", 0.25),
        ("share=1", "share", 1.0),
        ("fast=false", "fast", False),
        ("extra=7", "extra", 7),
        ("extra=text", "extra", "text"),
        ("list=[3, x]", "list", [3, "x"]),
        ("tuning.depth=4", "tuning", {"depth": 4, "names": ["a"]}),
        ("tuning={depth: 1}", "tuning", {"depth": 1}),
    ],
)
def test_a_value_keeps_its_type(recipe: Recipe, setting: str, name: str, value: object) -> None:
    found = dict(changed_values(recipe, [setting]).values)
    assert (found[name], type(found[name])) == (value, type(value))
    assert {key: one for key, one in found.items() if key != name} == {
        key: one for key, one in recipe.values if key != name
    }


def test_several_are_set_one_after_the_other_and_the_recipe_stays_as_it_is(recipe: Recipe) -> None:
    before = dict(recipe.values)
    found = dict(changed_values(recipe, ["tuning.depth=4", "tuning.names=[b]", "port=1", "port=2"]).values)
    assert found["tuning"] == {"depth": 4, "names": ["b"]} and found["port"] == 2
    assert dict(recipe.values) == before


@pytest.mark.parametrize(
    "setting",
    [
        *("port=many", "port=1.5", "port=true", "port=", "fast=1", "share=.inf", "share=x", "list=3", "tuning=[1]"),
        *("extra=[1]", "tuning.depth=deep", "port=1\nother: 2", "fast=&a true"),
    ],
)
def test_another_type_is_refused_with_the_place_of_the_recipes_value(recipe: Recipe, setting: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        changed_values(recipe, [setting])
    problem = raised.value.problems[0]
    assert problem.code == "value-type"
    assert problem.place is not None and ".yaml:" in problem.place


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("sise=1", "did you mean 'size', declared at app.yaml:7?"),
        ("usr=1", "did you mean 'user', declared at base.yaml:2?"),
        ("tuning.deph=1", "did you mean 'tuning.depth', declared at base.yaml:3?"),
        ("port.inner=1", "did you mean"),
        ("zzzzzz=1", "it has user, tuning, tuning.depth, tuning.names, size, port"),
    ],
)
def test_an_unknown_value_is_refused_with_the_nearest(recipe: Recipe, setting: str, hint: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        changed_values(recipe, [setting])
    problem = raised.value.problems[0]
    assert problem.code == "value-unknown" and problem.hint is not None
    assert hint in problem.hint or (hint == "did you mean" and "it has" in problem.hint)


@pytest.mark.parametrize("setting", ["port", "=1", ""])
def test_what_is_no_setting_is_refused(recipe: Recipe, setting: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        changed_values(recipe, [setting])
    assert raised.value.code == "option-malformed"
