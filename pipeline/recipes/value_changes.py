"""Other values than a recipe's, as a person writes them on the command line (`run --set`)."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.errors import RecipeError, UsageError
from pipeline.model.recipe import Recipe
from pipeline.yaml_documents import load_yaml, parse_yaml

_SHOWN = 12
"""Names of values that a hint lists at most."""


def changed_values(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return the recipe with other values.

    They are written `NAME=VALUE`, or `NAME.INNER=VALUE` for one of a mapping. A value keeps its type: text is taken as
    it is, all else is read as YAML.

    Raises UsageError `option-malformed`, `value-unknown` with the nearest name and where that one is declared,
    `value-type`.
    """
    values = dict(recipe.values)
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise UsageError(
                "option-malformed", f"invalid --set '{setting}'", hint="write --set NAME=VALUE, such as port=8081"
            )
        values = _with(values, name.split("."), text, name, recipe)
    return replace(recipe, values=tuple(values.items()))


def _with(values: Mapping[str, object], path: Sequence[str], text: str, name: str, recipe: Recipe) -> dict[str, object]:
    key, *inner = path
    if key not in values:
        raise _unknown(name, recipe)
    below = values[key]
    if not inner:
        return {**values, key: _converted(text, below, name, recipe)}
    if not isinstance(below, dict):
        raise _unknown(name, recipe)
    return {**values, key: _with(below, inner, text, name, recipe)}


def _converted(text: str, before: object, name: str, recipe: Recipe) -> object:
    """Return the value of a text that has the type of the recipe's value."""
    if isinstance(before, str):
        return text
    try:
        read = parse_yaml(f"value: {text}\n", "--set").value
    except RecipeError:
        read = None
    value = read.get("value") if isinstance(read, dict) and read.keys() == {"value"} else None
    if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = type(value) is type(before) or (before is None and not isinstance(value, dict | list))
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(
            "value-type",
            f"--set {name}: '{text}' is not {_kind(before)}, as '{name}' in the recipe is",
            place=_place(recipe, name),
            hint=f"write it as YAML, in one line; the recipe has {json.dumps(before)}",
        )
    return value


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping", list: "a list"}
    return names.get(type(value), "a value")


def _unknown(name: str, recipe: Recipe) -> UsageError:
    known = list(_names(dict(recipe.values)))
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        hint = f"did you mean '{near[0]}', declared at {_place(recipe, near[0])}?"
    elif known:
        hint = f"it has {', '.join(known[:_SHOWN])}" + (" …" if len(known) > _SHOWN else "")
    else:
        hint = "it has none; edit a file with --edit PATH"
    return UsageError("value-unknown", f"the recipe '{recipe.name}' has no value '{name}'", hint=hint)


def _names(values: Mapping[str, object], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{above}{key}.")


def _place(recipe: Recipe, name: str) -> str:
    """Return the `file:line` at which a value is declared, in the uppermost recipe that has it."""
    wanted = ("values", *name.split("."))
    own, *included = recipe.sources
    for source in (own, *reversed(included)):
        document = load_yaml(Path(source), Path(source).name)
        if wanted in document.positions:
            return document.place(wanted)
    return recipe.path.name
