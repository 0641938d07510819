"""The names of the Python API: all typed, described, documented, and the same in the module of a wheel."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path

import pytest

from pipeline import api

ROOT = Path(__file__).parents[3]
FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]


def test_the_module_of_a_wheel_has_these_names() -> None:
    tree = ast.parse((ROOT / "ci/wheel.d/relbuild/__init__.py").read_text())
    imported = {
        (node.module, one.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for one in node.names
        if one.asname is None
    }
    assert imported == {("pipeline", "__version__"), *(("pipeline.api", name) for name in api.__all__)}
    (exported,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(exported) == sorted(["__version__", *api.__all__])


@pytest.mark.parametrize("name", api.__all__)
def test_each_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(api, name))
    assert f"`{name}" in (ROOT / "docs/api.md").read_text() or name == "Problem"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_parameter_and_result_has_a_type(name: str) -> None:
    function = getattr(api, name)
    types = typing.get_type_hints(function)
    assert types.keys() == {*inspect.signature(function).parameters, "return"}
    assert typing.Any not in types.values()


def test_what_a_person_can_cause_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = api.Settings(store=tmp_path / "store", environment={})
    with pytest.raises(api.RelbuildError, match="recipe 'ngins' not found") as raised:
        api.resolve("ngins", settings=settings)
    assert isinstance(raised.value, api.RecipeError) and raised.value.problems[0].hint == "did you mean 'nginx.yaml'?"
    with pytest.raises(api.UsageError):
        api.publish([], to="nowhere", key=tmp_path / "none.key", settings=settings)
    assert "environment" not in repr(settings)
