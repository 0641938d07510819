"""Recipes, platforms, templates and documents that come with relbuild."""

from __future__ import annotations

from pathlib import Path

_BESIDE = Path(__file__).parents[1]

SHIPPED = _BESIDE / "relbuild" if (_BESIDE / "relbuild" / "recipes").is_dir() else _BESIDE
"""The folder with recipes/, templates/ and docs/: in the module `relbuild` that a wheel installs, else the checkout."""

SHIPPED_RECIPES = (SHIPPED / "recipes",)
"""Folders of the product recipes and platforms that come with relbuild."""


def platforms_file(*folders: Path) -> Path:
    """Return the file that defines platforms: the first that exists, else the first looked for.

    The folders are searched, then those that come with relbuild.
    """
    files = [folder / "repositories.yaml" for folder in (*folders, *SHIPPED_RECIPES)]
    return next((file for file in files if file.exists()), files[0])


def locks_folder(recipe: Path) -> Path | None:
    """Return the working directory for the locks of recipes that are installed with relbuild.

    They are not written beside those: others use them too. None for all other recipes.
    """
    return Path() if SHIPPED != _BESIDE and recipe.parent in SHIPPED_RECIPES else None
