"""Resolve path arguments: output folder, key file, platforms file, OCI layout."""

from __future__ import annotations

import os
from pathlib import Path

import pipeline
from pipeline.errors import UsageError

_BESIDE = Path(pipeline.__file__).parents[1]

SHIPPED = _BESIDE / "relbuild" if (_BESIDE / "relbuild" / "recipes").is_dir() else _BESIDE
"""The folder with recipes/, templates/ and docs/: in the module `relbuild` that a wheel installs, else the checkout."""

SHIPPED_RECIPES = (SHIPPED / "recipes",)
"""Folders of the product recipes and platforms that come with relbuild."""


def require_folder(path: Path) -> Path:
    """Return `path` if it is a directory, or can be created as one.

    Raises UsageError `not-a-directory`.
    """
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), path)
    if os.path.lexists(existing) and not existing.is_dir():
        raise UsageError(
            "not-a-directory", "this is not a directory", place=str(existing),
            hint="choose another path, or move it away",
        )  # fmt: skip
    return path


def locks_folder(recipe: Path) -> Path | None:
    """Return the working directory for the locks of recipes that are installed with relbuild.

    They are not written beside those: others use them too. None for all other recipes.
    """
    return Path() if SHIPPED != _BESIDE and recipe.parent in SHIPPED_RECIPES else None


def require_key_file(path: Path) -> Path:
    """Return `path` unless it is a key itself, which no message may show.

    Raises UsageError `key-is-text`.
    """
    if "-----BEGIN" in str(path) or "\n" in str(path):
        raise UsageError(
            "key-is-text",
            "the option or environment variable for the key's file has the key itself",
            hint="write the key to a file that only you can read, and give its name",
        )
    return path


def platforms_file(*folders: Path) -> Path:
    """Return the file that defines platforms: the first that exists, else the first looked for.

    The folders are searched, then those that come with relbuild.
    """
    files = [folder / "repositories.yaml" for folder in (*folders, *SHIPPED_RECIPES)]
    return next((file for file in files if file.exists()), files[0])


def names_layout(text: str) -> bool:
    """Return True if the text names an image's layout, and not a recipe."""
    return (Path(text) / "index.json").is_file()


def built_layout(name: str, output: Path, hint: str) -> Path:
    """Return the layout of that path, or of that name in `output`.

    Raises UsageError `not-a-layout` with the hint.
    """
    for path in (Path(name), output / name):
        if (path / "oci-layout").is_file():
            return path
    where = f"no OCI layout in '{name}'" + ("" if "/" in name else f" or '{output / name}'")
    raise UsageError("not-a-layout", where, hint=hint)
