"""Nouns written with all that is in them, and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.model.platform import Platform
from pipeline.model.recipe import FileKind, FilePlan, Request
from pipeline.model.whole_json import from_whole_json, to_whole_json
from pipeline.process import Completed
from pipeline.recipes import load_platforms, load_recipe

ROOT = Path(__file__).parents[3]

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


def _again(value: object) -> object:
    return from_whole_json(json.loads(json.dumps(to_whole_json(value), sort_keys=True)))


@given(_VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    again = _again(value)
    assert repr(again) == repr(value)


def test_what_takes_no_part_in_comparisons_comes_back_too() -> None:
    plan = FilePlan(FileKind.URL, "/etc/a", "https://a", 0o644, "root", "root", "a.yaml:3", Digest("a" * 64), 1)
    again = _again((plan, Request("bash", "a.yaml:1"), frozenset({"b", "a"}), Path("a/b")))
    assert again == (plan, Request("bash", "a.yaml:1"), frozenset({"b", "a"}), Path("a/b"))
    platform = _again(Platform("a", (), description="told", files=(Path("x"),), machine_variables=frozenset({"y"})))
    assert isinstance(platform, Platform)
    assert (platform.description, platform.files, platform.machine_variables) == ("told", (Path("x"),), {"y"})


def test_every_shipped_recipe_and_platform_comes_back() -> None:
    definitions = ROOT / "recipes" / "repositories.yaml"
    nouns: list[object] = [*load_platforms(definitions).values()]
    nouns += [load_recipe(path) for path in sorted((ROOT / "recipes").glob("*.yaml")) if path != definitions]
    assert len(nouns) > 20
    for noun in nouns:
        again = _again(noun)
        assert again == noun
        assert to_whole_json(again) == to_whole_json(noun)


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}, Completed, 1j])
def test_what_is_no_noun_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        to_whole_json((value,))


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "pipeline.process:Completed", "pipeline.model.recipe:Path", "pipeline.model.recipe:x"]
)
def test_only_nouns_are_made(name: str) -> None:
    with pytest.raises(TypeError):
        from_whole_json({"classes": [name], "value": {"of": [0]}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"value": 1},
        {"value": {"of": [0, "a", "b", "c"]}, "classes": ["pipeline.model.recipe:Request"]},
        {"value": {"of": [0, "a"]}, "classes": ["pipeline.model.recipe:Request"]},
        {"value": {"of": [1]}, "classes": ["pipeline.model.recipe:Request"]},
        {"value": {"enum": [0, "no"]}, "classes": ["pipeline.model.recipe:FileKind"]},
        {"value": {"what": 1}, "classes": []},
        {"value": {"path": "a", "float": "b"}, "classes": []},
    ],
)
def test_what_was_not_written_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError, LookupError)):
        from_whole_json(value)
