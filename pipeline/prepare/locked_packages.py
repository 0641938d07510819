"""Find the packages that the locks below a folder name, so that they are kept in the store."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from pipeline.digest import Digest
from pipeline.resolve import is_lock, read_lock

_RECIPE_START = 1 << 20
"""Bytes at the start of a file that are searched for a recipe's keys."""

_RECIPE_MARKS = (re.compile(rb"^name\s*:", re.MULTILINE), re.compile(rb"^(layers|from|include)\s*:", re.MULTILINE))


def locked_packages(folder: Path) -> frozenset[Digest]:
    """Return the checksums of all packages in the locks below a folder.

    Read are locks beside their recipe, and those that begin like relbuild's; other programs' locks are ignored. Raises
    ResolutionError for a lock that cannot be read, so that its packages are not removed from the store, and OSError
    where the folder itself is missing, or is none.
    """
    found: set[Digest] = set()
    os.scandir(folder).close()
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for path in (Path(above, name) for name in sorted(files) if name.endswith(".lock")):
            if path.is_symlink():
                continue  # Its target is found by itself, or is not read by a build.
            lock = read_lock(path) if is_lock(path) or _beside_recipe(path) else None
            for section in lock.sections if lock else ():
                found.update(chosen.package.checksum for chosen in section.resolution.chosen)
    return frozenset(found)


def _beside_recipe(path: Path) -> bool:
    """Return whether a recipe of the same name is beside the lock at `path`."""
    if not path.is_file():
        return False
    for recipe in (path.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        with contextlib.suppress(OSError), recipe.open("rb") as file:
            start = file.read(_RECIPE_START)
            if all(mark.search(start) for mark in _RECIPE_MARKS):
                return True
    return False
