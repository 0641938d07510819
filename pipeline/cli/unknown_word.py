"""Refusal of a first word that is neither a command nor a recipe."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from pipeline.cli import commands
from pipeline.errors import UsageError
from pipeline.shipped import SHIPPED_RECIPES

_ENDED = "an ended instance does not start again: `relbuild rm NAME`, then `relbuild run -d IMAGE --name NAME`"
_OTHER_PROGRAMS = {
    "images": "built images are in the output folder; `relbuild inspect NAME` tells of one",
    "kill": "`relbuild stop -t 0 NAME` kills an instance",
    "push": "`relbuild publish NAME --to MIRROR --key KEY` publishes an image",
    "restart": _ENDED,
    "start": _ENDED,
    "test": "`relbuild smoke NAME` tests an image",
}
"""Commands that other programs have, and what does the same here."""

_ALIKE = 0.7
"""Likeness of a suggestion (difflib's ratio): `biuld` and `build` have 0.8, `hello` and `help` 0.67."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
"""A word that may be a command: no path, no file with a suffix, no option."""


_NOTHING_NEAR = "`relbuild --help` lists the commands; recipes are looked for in this folder and its recipes/"


def require_recipe(word: str) -> None:
    """Refuse a first word of a command line that can be neither a command nor a recipe.

    `relbuild WORD` builds the recipe of that name. Raises UsageError `command-unknown` for a word that looks like a
    command, and that no recipe has as its name.
    """
    if not _WORD.fullmatch(word) or Path(word).exists():
        return
    folders = (Path(), Path("recipes"), *SHIPPED_RECIPES)
    if any((folder / f"{word}{ending}").is_file() for folder in folders for ending in (".yaml", ".yml")):
        return
    names = sorted({commands.words_of(module)[0] for module in commands.modules()})
    recipes = sorted(
        {path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml") if path.is_file()}
        - {"repositories"}
    )
    usual = _OTHER_PROGRAMS.get(word.lower())
    near = difflib.get_close_matches(word.lower(), [*names, *recipes], n=1, cutoff=_ALIKE)
    raise UsageError(
        "command-unknown",
        f"'{word}' is no command, and no recipe has this name",
        hint=usual or (f"did you mean `relbuild {near[0]}`?" if near else _NOTHING_NEAR),
    )
