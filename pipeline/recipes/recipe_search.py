"""Search for a recipe by its path or name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import RecipeError

_SUGGESTION_CANDIDATES = 1000
"""Recipes that are compared with a missing one for a suggestion."""


def nearest_names(name: str, known: Sequence[str]) -> list[str]:
    """Return the known name that is most like `name`, if any is."""
    # Here and not above: who finds the recipe needs neither.
    from difflib import get_close_matches

    from pipeline.recipes.paths import LONGEST_NAME

    return get_close_matches(name[:LONGEST_NAME], known[:_SUGGESTION_CANDIDATES], n=1)


def find_recipe(name: str, folders: Sequence[Path]) -> Path:
    """Find a recipe by path, or by name without its suffix.

    Names are searched in the working directory, then in `folders`. Raises RecipeError `recipe-missing`,
    `recipe-unreadable`.
    """
    endings = ("",) if name.endswith((".yaml", ".yml")) else ("", ".yaml", ".yml")
    places = [Path(), *folders]
    for folder in places:
        for ending in endings:
            candidate = folder / (name + ending)
            if candidate.is_file():
                return candidate
            if candidate.exists() and not candidate.is_dir():
                hint = "write the recipe into a file; it is read more than once, with what stands beside it"
                raise RecipeError("recipe-unreadable", f"'{candidate}' is a pipe, socket or device", hint=hint)
    known = sorted(
        {
            path.name
            for folder in places
            if folder.is_dir()
            for path in folder.glob("*.yaml")
            if path.name != "repositories.yaml" and path.is_file()
        }
    )
    wanted = Path(name).name
    # Without their suffixes, which would make short names similar.
    stems = {Path(one).stem: one for one in known}
    near = [stems[one] for one in nearest_names(Path(wanted).stem, list(stems))]
    if Path(name).is_dir():
        hint = "give one recipe; `relbuild nightly` builds a folder of recipes"
    elif near:
        hint = f"did you mean '{near[0]}'?"
    else:
        hint = f"recipes: {', '.join(known[:12])}" if known else "create one with `relbuild new NAME`"
    raise RecipeError("recipe-missing", f"recipe '{name}' not found", hint=hint)
