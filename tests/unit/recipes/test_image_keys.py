"""A key under `image` is declared once, and is then in recipes, images, inheritance, checks and output."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from pipeline.cli.image_format import image_as_lines
from pipeline.model.checks import CheckKind, image_check, judge
from pipeline.model.checks.image_check import ImageAnswer, ImageFacts
from pipeline.model.configuration import inherited
from pipeline.model.image import ImageConfig
from pipeline.model.image_keys import IMAGE_KEYS, NAMED, UNORDERED, ConfigForm, ImageKey, ImageSettings, KeyForm
from pipeline.model.json_form import from_json, to_json
from pipeline.model.smoke import Check
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image, parse_config
from pipeline.recipes import load_recipe
from pipeline.recipes.form_fields import kind_annotation
from pipeline.recipes.schema import ImageDocument

each = pytest.mark.parametrize("key", IMAGE_KEYS, ids=lambda key: key.name)
BARE = ImageConfig("amd64", 0)
VALUES: dict[KeyForm, tuple[Any, Any]] = {
    KeyForm.WORDS: (("a", "b"), ("c",)),
    KeyForm.USER: ("one", "two"),
    KeyForm.FOLDER: ("/one", "/two"),
    KeyForm.VARIABLES: (("A=1", "B=1"), ("B=2",)),
    KeyForm.PORTS: (("1/tcp",), ("2/udp",)),
    KeyForm.PATHS: (("/one",), ("/two",)),
    KeyForm.SIGNAL: ("SIGINT", "SIGHUP"),
    KeyForm.LABELS: ((("a", "1"), ("b", "1")), (("b", "2"),)),
}
"""Two values of each form, as an image has them."""


def having(key: ImageKey, value: object) -> ImageConfig:
    changes: dict[str, Any] = {key.name: value}
    return dataclasses.replace(BARE, **changes)


def test_every_setting_is_in_the_table() -> None:
    assert [field.name for field in dataclasses.fields(ImageSettings)] == [key.name for key in IMAGE_KEYS]
    assert len({key.config for key in IMAGE_KEYS}) == len(IMAGE_KEYS)


@each
def test_recipes_have_it_and_checks_ask_for_it(key: ImageKey) -> None:
    assert ImageDocument.model_fields[key.name].description == key.meaning
    assert kind_annotation(image_check.DECLARATION).model_fields[key.name].description == key.checked
    assert list(ImageDocument.model_fields) == [other.name for other in IMAGE_KEYS]
    if key.example is not None:
        assert getattr(ImageDocument.model_validate({key.name: key.example}), key.name) is not None


@each
def test_a_recipe_that_includes_another_merges_it_or_replaces_it(key: ImageKey, tmp_path: Path) -> None:
    below, own = ('{A: "1", B: "1"}', '{B: "2"}') if key.form in NAMED else _written(key)
    minimal = "platform: p\nlayers: [{name: base, packages: [bash]}]\n"
    run = "" if key.name == "entrypoint" else "entrypoint: [/bin/x], "
    (tmp_path / "low.yaml").write_text(f"name: low\nversion: '1'\n{minimal}image: {{{run}{key.name}: {below}}}\n")
    (tmp_path / "top.yaml").write_text(f"name: top\nversion: '1'\ninclude: [low.yaml]\nimage: {{{key.name}: {own}}}\n")
    image = load_recipe(tmp_path / "top.yaml").image
    expected: dict[KeyForm, object] = {
        KeyForm.VARIABLES: ("A=1", "B=2"),
        KeyForm.LABELS: (("A", "1"), ("B", "2")),
    }
    assert getattr(image, key.name) == expected.get(key.form, VALUES[key.form][1])
    assert key.name in image.given


@each
def test_a_key_without_a_value_is_not_given(key: ImageKey, tmp_path: Path) -> None:
    if key.form not in NAMED:
        (tmp_path / "a.yaml").write_text(
            "name: a\nversion: '1'\nplatform: p\nlayers: [{name: base, packages: [bash]}]\n"
            f"image:\n  labels: {{a: b}}\n  {key.name}:\n"
        )
        assert load_recipe(tmp_path / "a.yaml").image.given == {"labels"}


def _written(key: ImageKey) -> tuple[str, str]:
    low, top = VALUES[key.form]
    if isinstance(low, str):
        return low, top
    return f"[{', '.join(low)}]", f"[{', '.join(top)}]"


@each
def test_a_config_has_it_and_is_read_back(key: ImageKey) -> None:
    config = having(key, VALUES[key.form][0])
    image = make_image("x", "x:1", config, ())
    assert f'"{key.config}":'.encode() in image.config_bytes
    assert parse_config(image.config_bytes)[0] == config
    assert f'"{key.config}"'.encode() not in make_image("x", "x:1", BARE, ()).config_bytes


@each
def test_a_child_has_its_parents_or_its_own(key: ImageKey) -> None:
    parents, own = VALUES[key.form]
    below = having(key, parents)
    left = inherited(BARE, frozenset(), below)
    assert getattr(left, key.name) == parents
    changed = inherited(having(key, own), frozenset({key.name}), below)
    merged = {KeyForm.VARIABLES: ("A=1", "B=2"), KeyForm.LABELS: (("a", "1"), ("b", "2"))}
    assert getattr(changed, key.name) == merged.get(key.form, own)


@each
def test_it_goes_with_the_key_that_it_follows(key: ImageKey) -> None:
    if key.follows:
        gone = inherited(BARE, frozenset({key.follows}), having(key, VALUES[key.form][0]))
        assert getattr(gone, key.name) == getattr(BARE, key.name)


@each
def test_a_check_tells_one_value_from_another(key: ImageKey) -> None:
    has, other = VALUES[key.form]
    asked: tuple[object, object] = (has, other)
    if key.form in NAMED:
        name = "B" if key.form is KeyForm.VARIABLES else "b"
        asked = (((name, (Rule(equals="1"),)),), ((name, (Rule(equals="2"),)),))
    for wanted, right in zip(asked, (True, False), strict=True):
        facts = ImageFacts(**{key.name: wanted})
        assert from_json(ImageFacts, to_json(facts)) == facts
        wrong = judge(Check("a", CheckKind.IMAGE, 1, subject=facts), ImageAnswer(), having(key, has))
        assert (not wrong) is right
        assert right or (key.one or key.name) in wrong


@each
def test_people_see_it_where_it_has_a_name_for_them(key: ImageKey) -> None:
    lines = image_as_lines(make_image("x", "x:1", having(key, VALUES[key.form][0]), ()))
    found = [line for line in lines if line.startswith(f"  {key.shown} ")] if key.shown else []
    assert bool(found) is bool(key.shown)


def test_what_stands_where_nothing_is_said() -> None:
    lines = image_as_lines(make_image("x", "x:1", BARE, ()))
    written = (
        "  entrypoint   ",
        "  command      ",
        "  user         root",
        "  ports        none",
        "  volumes      none",
        "  stop signal  SIGTERM",
    )
    assert set(written) <= set(lines)


@each
def test_its_form_in_a_config_has_the_type_of_the_setting(key: ImageKey) -> None:
    """`dataclasses.field` is no witness of either: it may be given to a field of any type."""
    types: dict[ConfigForm, object] = {
        ConfigForm.STRING: str,
        ConfigForm.ARRAY: tuple[str, ...],
        ConfigForm.SET: tuple[str, ...],
        ConfigForm.OBJECT: tuple[tuple[str, str], ...],
    }
    assert get_type_hints(ImageSettings)[key.name] == types[key.stored]
    assert getattr(BARE, key.name) == ("" if key.stored is ConfigForm.STRING else ())
    assert (key.stored is ConfigForm.SET) is (key.form in UNORDERED), f"{key.name}: an object of empties has no order"
