"""Find the recipe that an argument names, with its platforms; name its files in errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.recipes import find_recipe
from pipeline.shipped import SHIPPED_RECIPES, locks_folder, platforms_file

if TYPE_CHECKING:  # Not above: commands that test nothing need none of it.
    from pipeline.model.report import SmokeReport
    from pipeline.model.smoke import Check

_DOCUMENTS = (".yaml", ".yml", ".repo")
"""Endings of the files that a recipe and its platforms are written in."""


@dataclass(frozen=True, slots=True)
class RecipePlace:
    """A recipe's file, the file of its platforms, and the folder of its lock if not its own."""

    recipe: Path
    repositories: Path
    locks: Path | None


def find_recipe_place(name: str, repositories: Path | None) -> RecipePlace:
    """Find a recipe by path or name; `repositories` is a given file of platforms.

    Raises RecipeError `recipe-missing`.
    """
    path = find_recipe(name, [Path("recipes"), *SHIPPED_RECIPES])
    return RecipePlace(path, repositories or platforms_file(path.parent), locks_folder(path))


@contextlib.contextmanager
def naming_files(recipe: Path, repositories: Path) -> Iterator[None]:
    """Name a recipe's files in errors of the block as the command line does.

    `nginx.yaml:10` is `recipes/nginx.yaml:10` then. The library's places are relative to the folder of the recipe or
    that of the platforms: they are the same wherever it is, in what is kept of a recipe and on other machines.
    """
    try:
        yield
    except RelbuildError as error:
        error.problems = tuple(
            replace(one, place=with_path(one.place, recipe, repositories)) if one.place else one
            for one in error.problems
        )
        raise


def with_check_paths(report: SmokeReport, recipe: Path, repositories: Path) -> SmokeReport:
    """Return a report whose checks' places name the recipe's files as the command line does."""

    def named(check: Check) -> Check:
        return replace(check, place=with_path(check.place, recipe, repositories)) if check.place else check

    asked = report.asked
    ready = None if asked.ready is None else named(asked.ready)
    return replace(report, asked=replace(asked, ready=ready, checks=tuple(map(named, asked.checks))))


def with_path(place: str, recipe: Path, repositories: Path) -> str:
    """Name the file with which a place begins by its path, if it is the recipe's or beside it.

    `.repo` files are looked for beside the platforms, where these name them.
    """
    name, colon, rest = place.partition(":")
    if not name.endswith(_DOCUMENTS) or Path(name).is_absolute():
        return place
    others = () if name == repositories.name or name.endswith(".repo") else (recipe.parent / name,)
    for path in (*others, repositories.parent / name):
        if path.is_file():
            return f"{os.path.normpath(path)}{colon}{rest}"
    return place
