"""Add-ons: the repositories that are put on top of a platform, chosen by its families."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.errors import Problem, RecipeError
from pipeline.model.platform import (
    AddOn,
    PackageRepository,
    Platform,
    is_relative_key,
    most_specific,
    release_variables,
    show_families,
)
from pipeline.recipes.problems import nearest
from pipeline.recipes.recipe_schema import ANY_PLATFORM

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def fitting_repositories(
    add_ons: Mapping[str, AddOn], name: str, families: Sequence[str]
) -> tuple[PackageRepository, ...] | Problem:
    """Return an add-on's repositories for a platform of these families.

    Else the problem `add-on-unknown` or `add-on-unfit`, without a place.
    """
    if name not in add_ons:
        near = nearest(name, add_ons)
        hint = f"did you mean '{near}'?" if near else f"add-ons: {', '.join(sorted(add_ons)) or 'none'}"
        return Problem("add-on-unknown", f"no add-on '{name}'", None, hint)
    known = add_ons[name].repositories
    chosen = most_specific((*families, ANY_PLATFORM), known)
    if chosen is None:
        return Problem(
            "add-on-unfit",
            f"the add-on '{name}' has no repositories for the platform '{families[0]}' ({show_families(families)})",
            None,
            f"it has some for {', '.join(sorted(known))}",
        )
    return known[chosen]


def add_repositories(platform: Platform, name: str, repositories: Sequence[PackageRepository]) -> Platform:
    """Return the platform with the repositories of the add-on `name` on top.

    Those that it has already, equally defined, stay where they are. Raises RecipeError `repository-duplicate`.
    """
    known = {one.id: one for one in (*platform.repositories, *platform.sources)}
    for one in repositories:
        if known.setdefault(one.id, one) != one:
            raise RecipeError(
                "repository-duplicate",
                f"the platform '{platform.name}' and the add-on '{name}' define the repository '{one.id}' differently",
                hint="give one of them another id",
            )
    added = tuple(one for one in repositories if one not in platform.repositories)
    keys = tuple(one.absolute() for one in key_files(added, dict(platform.variables), platform.architectures))
    folders = {one.folder.absolute() for one in added if one.folder}
    sent = tuple(one for one in keys if any(one.is_relative_to(folder) for folder in folders))
    return replace(
        platform,
        repositories=(*platform.repositories, *added),
        add_ons=(*platform.add_ons, name),
        files=tuple(dict.fromkeys((*platform.files, *sent))),
        watched=tuple(dict.fromkeys((*platform.watched, *keys))),
    )


def key_files(
    repositories: Iterable[PackageRepository], variables: Mapping[str, str], architectures: Iterable[str]
) -> Iterator[Path]:
    """Yield the key files beside the definitions.

    A name with a variable of the environment is left out.
    """
    own = {**release_variables(variables), **variables}
    named = [(one.folder, key) for one in repositories for key in one.keys if one.folder and is_relative_key(key)]
    for arch in architectures:
        known = {"arch": arch, "basearch": arch, **own}
        for folder, key in named:
            path = _VARIABLE.sub(partial(_value, known), key)
            if "$" not in path:
                yield folder / path


def _value(known: Mapping[str, str], found: re.Match[str]) -> str:
    return known.get(found.group(1) or found.group(2), found.group())
