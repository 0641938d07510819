"""Putting a recipe together from its files: the rule of includes, and what must hold between values.

Included recipes come first, in order, then the recipe itself on top of them:

- `layers` are put one on the other, an included recipe's lowest. A layer's name may occur once: adding
  packages to an included layer would change bytes that other images share.
- `accounts`, `files`, `remove`, `exclude`, `modules` and `assume-installed` are put one after the other. A file
  at a path that is made already needs `override: true`.
- `values`, `pins`, `environment` and `labels` are merged, mappings inside `values` too; the upper one wins.
- `platform`, `architectures`, `languages`, `weak-dependencies`, each other key of `image`, and `smoke` as a
  whole are replaced where the upper one gives them.
- `name` and `version` are the recipe's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.documents import DocumentPath
from pipeline.errors import RecipeError
from pipeline.model.recipe import ImagePlan, Recipe
from pipeline.recipes.accounts import plan_accounts
from pipeline.recipes.checks import plan_smoke
from pipeline.recipes.fields import PORT_MOST
from pipeline.recipes.files import plan_files
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.requests import (
    CAPABILITY,
    GLOB,
    LANGUAGE,
    MODULE,
    plan_layers,
    plan_names,
    plan_pins,
)
from pipeline.recipes.schema import ImageDocument, is_given
from pipeline.recipes.sources import Source, read_sources
from pipeline.render import Templates, check, evaluate

RESERVED = frozenset({"arch", "name", "packages", "platform", "values", "range", "dict", "namespace", "loop"})
"""Names that templates see beside the recipe's values."""

DEFAULT_ARCHITECTURES = ("x86_64",)

Value = TypeVar("Value")


def load_recipe(path: Path) -> Recipe:
    """The recipe at `path` with all that it includes. Raises RecipeError with every problem at once."""
    top = Path(os.path.abspath(path))  # noqa: PTH100  not resolved: a link to a recipe stands where it stands
    problems = Problems()
    sources = read_sources(top, problems)
    problems.stop_if_any()
    recipe = _assemble(sources, top, problems)
    problems.stop_if_any()
    return recipe


def scope(recipe: Recipe) -> dict[str, object]:
    """What the recipe's templates see: each value by its name, all as `values`, and the recipe's `name`.
    The build adds `packages`."""
    return _scope(dict(recipe.values), recipe.name)


def _scope(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {**values, "values": dict(values), "name": name}


def _assemble(sources: Sequence[Source], top: Path, problems: Problems) -> Recipe:
    own = sources[-1]
    for key in ("name", "version"):
        if getattr(own.recipe, key) is None:
            problems.add("key-missing", f"the key '{key}' is missing", own.document, (), f"add '{key}:'")
    platform = _upper(sources, "platform", "")
    if not platform:
        hint = "add 'platform:' with a platform of repositories.yaml"
        problems.add("key-missing", "the key 'platform' is missing", own.document, (), hint)
    name = own.recipe.name or ""
    _check_template(own.recipe.version or "", own, ("version",), problems)
    folders = _template_folders(sources)
    values = _values(sources, problems)
    seen = _scope(values, name)
    users, groups = plan_accounts(sources, problems)
    image = _image(sources, seen, problems)
    tested = next((source for source in reversed(sources) if source.recipe.smoke is not None), own)
    smoke = plan_smoke(tested, seen, problems)
    if tested.recipe.smoke is not None and not image.entrypoint and not image.command:
        path: DocumentPath = ("image",) if is_given(own.recipe, "image") else ()
        message = "the image is to be tested, but nothing says what it runs"
        problems.add("image-without-program", message, own.document, path, "add image.entrypoint")
    weak = _upper(sources, "weak_dependencies", False)
    files = plan_files(sources, Templates(folders), top.parent, problems)
    return Recipe(
        name=name,
        path=top,
        version=own.recipe.version or "",
        platform=platform,
        architectures=tuple(dict.fromkeys(_upper(sources, "architectures", DEFAULT_ARCHITECTURES))),
        layers=plan_layers(sources, weak, top.parent, problems),
        users=users,
        groups=groups,
        files=files,
        remove=_removed(sources, {plan.path for plan in files}, problems),
        values=tuple(values.items()),
        image=image,
        smoke=smoke,
        weak_dependencies=weak,
        languages=plan_names(_upper_source(sources, "languages"), "languages", LANGUAGE, problems),
        excludes=plan_names(sources, "exclude", GLOB, problems),
        pins=plan_pins(sources, problems),
        assume_installed=plan_names(sources, "assume-installed", CAPABILITY, problems),
        modules=plan_names(sources, "modules", MODULE, problems),
        sources=tuple(source.path for source in (own, *sources[:-1])),
        template_folders=folders,
    )


def _upper(sources: Sequence[Source], field: str, default: Value) -> Value:
    """What the uppermost recipe that gives `field` says."""
    for source in _upper_source(sources, field):
        value: Value = getattr(source.recipe, field)
        return value
    return default


def _upper_source(sources: Sequence[Source], field: str) -> tuple[Source, ...]:
    found = [source for source in sources if getattr(source.recipe, field) is not None]
    return (found[-1],) if found else ()


def _template_folders(sources: Sequence[Source]) -> tuple[Path, ...]:
    """Beside each recipe, `templates/` beside it and `templates/` beside its folder; the upper recipe first."""
    folders: dict[Path, None] = {}
    for source in reversed(sources):
        for folder in (source.folder, source.folder / "templates", source.folder.parent / "templates"):
            if folder.is_dir():
                folders[folder] = None
    return tuple(folders)


def _values(sources: Sequence[Source], problems: Problems) -> dict[str, object]:
    merged: dict[str, object] = {}
    for source in sources:
        for key, value in source.recipe.values.items():
            path: DocumentPath = ("values", key)
            if key in RESERVED:
                message = f"'{key}' means something else in templates"
                problems.add("value-reserved", message, source.document, path, "choose another name")
            _refuse_infinite(value, source, path, problems)
        merged = _merged(merged, source.recipe.values)
    return merged


def _merged(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result


def _refuse_infinite(value: object, source: Source, path: DocumentPath, problems: Problems) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        problems.add(
            "value-not-finite",
            f"{value} is not a number that a file can hold",
            source.document,
            path,
            "write a finite number, or text in quotes",
        )
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        _refuse_infinite(item, source, (*path, key), problems)


def _image(sources: Sequence[Source], seen: Mapping[str, object], problems: Problems) -> ImagePlan:
    environment: dict[str, str] = {}
    labels: dict[str, str] = {}
    scalars: dict[str, object] = {}
    ports: tuple[str, ...] = ()
    for source in sources:
        image = source.recipe.image
        environment |= image.environment
        labels |= image.labels
        for key in ("entrypoint", "command", "user", "working_directory", "volumes", "stop_signal"):
            value = getattr(image, key)
            if value is not None:
                scalars[key] = tuple(value) if isinstance(value, list) else value
        if image.exposed_ports is not None:
            ports = _ports(image.exposed_ports, seen, source, problems)
        _check_image(image, source, problems)
    return ImagePlan(
        **scalars,  # type: ignore[arg-type]
        environment=tuple(environment.items()),
        exposed_ports=ports,
        labels=tuple(sorted(labels.items())),
    )


def _check_image(image: ImageDocument, source: Source, problems: Problems) -> None:
    for key in ("entrypoint", "command"):
        for index, word in enumerate(getattr(image, key) or ()):
            _check_template(word, source, ("image", key, index), problems)
    for key in ("environment", "labels"):
        for name, text in getattr(image, key).items():
            _check_template(text, source, ("image", key, name), problems)
    if image.entrypoint == []:
        message = "the entrypoint is empty"
        problems.add("list-empty", message, source.document, ("image", "entrypoint"), "name a program")


def _ports(written: Sequence[str], seen: Mapping[str, object], source: Source, problems: Problems) -> tuple[str, ...]:
    ports: dict[str, None] = {}
    for index, text in enumerate(written):
        path: DocumentPath = ("image", "exposed_ports", index)
        try:
            rendered = evaluate(text, seen, place=place(source.document, path))
        except RecipeError as error:
            problems.take(error)
            continue
        number, _, protocol = rendered.partition("/")
        if not (number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= PORT_MOST):
            hint = "write a port number from 1 to 65535"
            problems.add("port-malformed", f"'{rendered[:40]}' is not a port", source.document, path, hint)
        ports[f"{number}/{protocol or 'tcp'}"] = None
    return tuple(ports)


def _check_template(text: str, source: Source, path: DocumentPath, problems: Problems) -> None:
    try:
        check(text, place=place(source.document, path))
    except RecipeError as error:
        problems.take(error)


def _removed(sources: Sequence[Source], made: set[str], problems: Problems) -> tuple[str, ...]:
    removed: dict[str, None] = {}
    for source in sources:
        for index, target in enumerate(source.recipe.remove):
            path: DocumentPath = ("remove", index)
            if any(character in target for character in "*?["):
                message = f"'{target}' looks like a pattern, and patterns are not supported"
                hint = "name a directory to remove it with all below, or each path"
                problems.add("remove-pattern", message, source.document, path, hint)
            elif any(f"{file}/".startswith(f"{target}/") for file in made):
                message = f"'{target}' is removed, and 'files' puts something there"
                problems.add("remove-contradiction", message, source.document, path, "remove one of the two")
            removed[target] = None
    return tuple(removed)
