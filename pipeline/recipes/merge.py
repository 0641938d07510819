"""Merge a recipe with its includes into a `Recipe`, and check its values together.

Included recipes come first, in order, then the recipe itself on top of them:

- `layers` are put one on the other, an included recipe's lowest. A layer's name may occur once: adding
  packages to an included layer would change bytes that other images share.
- `accounts`, `files`, `remove`, `exclude`, `modules`, `assume-installed` and the waivers of `scriptlets` are put one
  after the other. A file at a path that is made already needs `override: true`.
- `values`, `pins`, `environment` and `labels` are merged, mappings inside `values` too; the upper one wins.
- `platform`, `architectures`, `languages`, `weak-dependencies`, `from`, the mode of `scriptlets`, each key of
  `payload-limits`, each other key of `image`, and `smoke` as a whole are replaced where the upper one gives them.
- The entries of `platforms` that fit stand on their own recipe; of `packages` in them, the upper one wins.
- `name`, `version` and `end-of-life` are the recipe's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipeline.beneath import GivenFolder, PathEscape
from pipeline.errors import RecipeError
from pipeline.model.payload_limits import PayloadLimits
from pipeline.model.recipe import LayerPlan, Recipe
from pipeline.recipes.account_plan import plan_accounts
from pipeline.recipes.files import plan_files
from pipeline.recipes.image_plan import check_text, plan_image
from pipeline.recipes.platform_entries import add_ons_of, entries_by_file, names_of, with_entries
from pipeline.recipes.platform_target import PlatformTarget
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile, parent_path, read_sources
from pipeline.recipes.requests import (
    CAPABILITY_FORM,
    GLOB_FORM,
    LANGUAGE_FORM,
    MODULE_FORM,
    plan_layers,
    plan_names,
    plan_pins,
)
from pipeline.recipes.schema import is_given
from pipeline.recipes.scriptlet_plan import plan_scriptlets
from pipeline.recipes.smoke_plan import plan_smoke
from pipeline.recipes.template_scope import scope_of
from pipeline.render import Templates
from pipeline.yaml_documents import DocumentPath

RESERVED = frozenset(
    {"arch", "name", "packages", "platform", "values", "range", "dict", "namespace", "loop", "self"}
    | {"true", "True", "false", "False", "none", "None"}
)
"""Names of templates' variables, functions and constants besides the recipe's values."""

DEFAULT_ARCHITECTURES = ("x86_64",)

LAYERS_MOST = 64
"""Layers of an image: as many as one overlay can have."""

FROM_DEPTH = 8
"""Depth of parents by `from`, as of includes."""

_Value = TypeVar("_Value")


def merge_recipe(top: Path, target: PlatformTarget) -> Recipe:
    """Read and merge the recipe at the absolute path `top`, as `load_recipe` does."""
    return _load(top, None, (), target)


def _load(top: Path, shown: str | None, stack: tuple[Path, ...], target: PlatformTarget) -> Recipe:
    """Load one recipe; `stack` are its descendants by `from`, the uppermost first."""
    problems = Problems()
    # A parent must be in the folder that was given with the recipe, too.
    sources = read_sources(top, problems, GivenFolder((stack[0] if stack else top).parent), shown)
    problems.stop_if_any()
    recipe = _assemble(sources, top, stack, target, problems)
    problems.stop_if_any()
    return recipe


def _load_parent(
    source: RecipeFile, top: Path, stack: tuple[Path, ...], target: PlatformTarget, problems: Problems
) -> Recipe | None:
    """Load the recipe that `source` is built from.

    None after adding the problems `from-cycle`, `from-too-deep`, those of `parent_path`, or the parent's own.
    """
    path = parent_path(source, source.recipe.from_ or "", problems)
    if path is None:
        return None
    below = (*stack, top)
    real = [one.resolve() for one in below]
    if path.resolve() in real:
        circle = " → ".join([*(one.name for one in below[real.index(path.resolve()) :]), path.name])
        message = f"recipes form a cycle through 'from': {circle}"
        problems.add("from-cycle", message, source.document, ("from",), "break the cycle")
        return None
    if len(below) > FROM_DEPTH:
        message = f"the chain of parent recipes is longer than {FROM_DEPTH}"
        problems.add("from-too-deep", message, source.document, ("from",), "merge some of them")
        return None
    try:
        return _load(path, os.path.relpath(path, below[0].parent), below, target)
    except RecipeError as error:
        problems.take(error)
        return None


def _line(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of a recipe and its ancestors."""
    return (recipe.name, *(_line(recipe.parent) if recipe.parent else ()))


def _runs_something(recipe: Recipe) -> bool:
    """Return whether a recipe's image has an entrypoint or command, its own or its parent's."""
    if recipe.image.entrypoint or recipe.image.command:
        return True
    return recipe.parent is not None and _runs_something(recipe.parent)


def _assemble(
    sources: Sequence[RecipeFile], top: Path, stack: tuple[Path, ...], target: PlatformTarget, problems: Problems
) -> Recipe:
    own = sources[-1]
    for key in ("name", "version"):
        if getattr(own.recipe, key) is None:
            problems.add("key-missing", f"the key '{key}' is missing", own.document, (), f"add '{key}:'")
    alone = not _upper_source(sources, "from_")
    parent = None if alone else _load_parent(_upper_source(sources, "from_")[0], top, stack, target, problems)
    platform = _upper(sources, "platform", parent.platform if parent else "")
    if not platform and (alone or parent):
        hint = "add 'platform:' with a platform of repositories.yaml"
        problems.add("key-missing", "the key 'platform' is missing", own.document, (), hint)
    architectures = _upper(sources, "architectures", parent.architectures if parent else DEFAULT_ARCHITECTURES)
    if parent is not None:
        _agree(sources, platform, architectures, parent, problems)
    full = with_entries(sources, target, platform, problems)
    names = names_of(full, parent)
    name = own.recipe.name or ""
    check_text(own.recipe.version or "", own, ("version",), problems)
    folders = _template_folders(sources, problems)
    values = _values(full, problems)
    seen = scope_of(values, name)
    users, groups = plan_accounts(full, problems)
    image = plan_image(full, seen, problems)
    tested = next((source for source in reversed(sources) if source.recipe.smoke is not None), own)
    upper = full if tested.recipe.smoke is None else full[full.index(tested) + 1 :]
    smoke = plan_smoke(tested, seen, problems, names=names, upper=upper)
    if smoke.upgrade_from and tested.folder != top.parent:
        smoke = replace(smoke, upgrade_from=os.path.relpath(tested.folder / smoke.upgrade_from, top.parent))
    runs = image.entrypoint or image.command or (not alone and (parent is None or _runs_something(parent)))
    if tested.recipe.smoke is not None and not runs:
        path: DocumentPath = ("image",) if is_given(own.recipe, "image") else ()
        message = "the image has checks, but no entrypoint"
        problems.add("image-without-program", message, own.document, path, "add 'image.entrypoint'")
    weak = _upper(sources, "weak_dependencies", False)
    files = plan_files(full, Templates(folders, own.given), top.parent, problems)
    removed = _removed(full, {plan.path for plan in files}, problems)
    layers = plan_layers(sources, weak, top.parent, problems, alone=alone, names=names)
    if (most := _most_layers(layers, parent)) > LAYERS_MOST:
        message = f"the image may have {most} layers, more than {LAYERS_MOST}"
        where: DocumentPath = ("layers",) if own.recipe.layers else ()
        problems.add("layers-too-many", message, own.document, where, "lower 'at-most' of 'auto', or merge layers")
    return Recipe(
        name=name,
        path=top,
        version=own.recipe.version or "",
        platform=platform,
        architectures=tuple(dict.fromkeys(architectures)),
        layers=layers,
        users=users,
        groups=groups,
        files=files,
        remove=tuple(removed),
        remove_places=tuple(removed.values()),
        values=tuple(values.items()),
        image=image,
        smoke=smoke,
        weak_dependencies=weak,
        languages=plan_names(_upper_source(sources, "languages"), "languages", LANGUAGE_FORM, problems),
        excludes=plan_names(full, "exclude", GLOB_FORM, problems, names),
        pins=plan_pins(full, problems, names),
        assume_installed=plan_names(full, "assume-installed", CAPABILITY_FORM, problems),
        modules=plan_names(full, "modules", MODULE_FORM, problems),
        sources=tuple(source.path for source in (own, *sources[:-1])),
        template_folders=folders,
        parent=parent,
        end_of_life=_upper([one for one in full if one.path == own.path], "end_of_life", ""),
        scriptlets=plan_scriptlets(full, problems),
        payload_limits=_payload_limits(full),
        package_names=tuple(sorted(names.items())),
        add_ons=add_ons_of(full, parent),
        platform_entries=entries_by_file(full),
    )


def _payload_limits(sources: Sequence[RecipeFile]) -> PayloadLimits:
    """Return the uppermost statement of each bound."""
    stated = PayloadLimits()
    for source in sources:
        stated = source.recipe.payload_limits.limits.over(stated)
    return stated


def _most_layers(layers: Sequence[LayerPlan], parent: Recipe | None) -> int:
    """Return how many package layers the recipe may have, beside its parents' and state layers."""
    below = _most_layers(parent.layers, parent.parent) if parent else 0
    return below + sum(plan.at_most or 1 for plan in layers) + 1


def _agree(
    sources: Sequence[RecipeFile], platform: str, architectures: Sequence[str], parent: Recipe, problems: Problems
) -> None:
    """Check that a recipe's platform, architectures and name fit its parent's.

    A child has its parent's platform and architecture, and a name of its own, which its layout in the output has.
    """
    own = sources[-1]
    if own.recipe.name in _line(parent):
        message = f"'{own.recipe.name}' is also the name of a parent recipe"
        problems.add("name-of-parent", message, own.document, ("name",), "give this recipe its own name")
    if platform != parent.platform:
        source = _upper_source(sources, "platform")[0]
        message = f"the platform is '{platform}', but the platform of the parent '{parent.name}' is"
        hint = "remove the key, or set it to the parent's platform"
        problems.add("platform-differs", f"{message} '{parent.platform}'", source.document, ("platform",), hint)
    lacking = [one for one in architectures if one not in parent.architectures]
    if lacking:
        source = _upper_source(sources, "architectures")[0]
        message = f"the parent '{parent.name}' is not built for {', '.join(lacking)}"
        hint = f"it is built for {', '.join(parent.architectures)}; remove the key, or extend the parent's"
        problems.add("architectures-differ", message, source.document, ("architectures",), hint)


def _upper(sources: Sequence[RecipeFile], field: str, default: _Value) -> _Value:
    """Return the value of `field` in the last of the sources that gives it."""
    for source in _upper_source(sources, field):
        value: _Value = getattr(source.recipe, field)
        return value
    return default


def _upper_source(sources: Sequence[RecipeFile], field: str) -> tuple[RecipeFile, ...]:
    found = [source for source in sources if getattr(source.recipe, field) is not None]
    return (found[-1],) if found else ()


def _template_folders(sources: Sequence[RecipeFile], problems: Problems) -> tuple[Path, ...]:
    """List the folders that are searched for templates; those of the upper recipe first.

    They are each recipe's folder, `templates/` in it, and `templates/` beside it.
    """
    folders: dict[Path, None] = {}
    for source in reversed(sources):
        for folder in (source.folder, source.folder / "templates", source.folder.parent / "templates"):
            try:
                if source.given.has_folder(folder):
                    folders[folder] = None
            except PathEscape as error:
                if error.link:  # Without one, it is outside the given folder, which is not searched.
                    problems.add("path-escapes", str(error.strerror), source.document, (), error.way_out)
    return tuple(folders)


def _values(sources: Sequence[RecipeFile], problems: Problems) -> dict[str, object]:
    merged: dict[str, object] = {}
    for source in sources:
        for key, value in source.recipe.values.items():
            path: DocumentPath = ("values", key)
            if key in RESERVED:
                message = f"'{key}' is a reserved name in templates"
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


def _refuse_infinite(value: object, source: RecipeFile, path: DocumentPath, problems: Problems) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        problems.add(
            "value-not-finite",
            f"{value} is not a finite number",
            source.document,
            path,
            "write a finite number, or text in quotes",
        )
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        _refuse_infinite(item, source, (*path, key), problems)


def _removed(sources: Sequence[RecipeFile], made: set[str], problems: Problems) -> dict[str, str]:
    """Return the paths that are removed, each with its place in a document."""
    removed: dict[str, str] = {}
    for source in sources:
        for index, target in enumerate(source.recipe.remove):
            path: DocumentPath = ("remove", index)
            if any(character in target for character in "*?["):
                message = f"'{target}' contains wildcards, which are not supported"
                hint = "list each path; a directory is removed with its content"
                problems.add("remove-pattern", message, source.document, path, hint)
            elif any(f"{file}/".startswith(f"{target}/") for file in made):
                message = f"'{target}' is both removed and created by 'files'"
                problems.add("remove-contradiction", message, source.document, path, "remove one of the two")
            removed.setdefault(target, place(source.document, path))
    return removed
