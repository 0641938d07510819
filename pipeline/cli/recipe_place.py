"""Find the recipe that an argument names, with its platforms and the folder of its locks."""

from __future__ import annotations

from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.recipes import find_recipe
from pipeline.shipped import SHIPPED_RECIPES, locks_folder, platforms_file


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
