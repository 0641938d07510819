"""Begin the snapshot of a build beside the packing of its layers, before it has outputs.

What changes afterwards differs from it, so that the next build does not take itself for the same one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline import process
from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.lock import LockMode
from pipeline.model.recipe import Recipe
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.sandbox.runtime import RUNTIMES
from pipeline.snapshots import ProgramStamps, library_records, loaded_files, mapped_files
from pipeline.store.blobs import Stamp

CHILD_LIBRARIES = ("jinja2", "markupsafe")
"""Modules that children of relbuild alone load."""

_PROGRAMS = ("gpg", "ldd", "rpm")
"""Programs that an unchanged build asks: for the validity of keys, and for the version of rpm's libraries."""


@dataclass(frozen=True, slots=True)
class BegunSnapshot:
    """The stamps of a build's program and of the blobs that it needs besides its layers.

    None for a blob that is not intact.
    """

    program: ProgramStamps
    blobs: Mapping[Digest, Stamp | None]


def begin_snapshot(locked: LockedRecipe, options: BuildOptions, build_env: BuildEnvironment) -> BegunSnapshot | None:
    """Begin the snapshot of a build; return None if it is not remembered, or cannot be."""
    if asked_again(options):
        return None
    try:
        program = ProgramStamps.taken(own_programs(build_env))
        return BegunSnapshot(program, {digest: intact_stamp(digest, build_env) for digest in needed_blobs(locked)})
    except (OSError, ValueError, LookupError, RelbuildError):
        return None


def asked_again(options: BuildOptions) -> bool:
    """Return whether a build is to be done whatever is known of it."""
    return options.mode is LockMode.UPGRADE or options.retest or options.sources


def own_programs(build_env: BuildEnvironment, begun: BegunSnapshot | None = None) -> set[str]:
    """Return the files of the program that builds: its own, and those of its children.

    Those of a snapshot that was `begun` are among them. Raises LookupError if a library was replaced.
    """
    if begun is None:
        own = {*loaded_files(), *mapped_files(), *library_records()}
        return {*own, *_child_files(), *_program_files(build_env)}
    known = begun.program.files
    return {*known, *loaded_files(known), *mapped_files(known)}


def needed_blobs(locked: LockedRecipe) -> set[Digest]:
    """Return the blobs that a build needs besides its layers.

    They are packages, and archives that the recipe names.
    """
    archives = {plan.sha256 for one in recipe_line(locked.recipe) for plan in one.files if plan.sha256 is not None}
    return archives | {chosen.package.checksum for chosen in locked.all_chosen}


def intact_stamp(digest: Digest, build_env: BuildEnvironment) -> Stamp | None:
    """Return the stamp of a blob in the store; None if it is missing or not intact."""
    return build_env.store.stamp(digest) if build_env.store.sound(digest) else None


def recipe_line(recipe: Recipe | None) -> Iterator[Recipe]:
    """Yield a recipe and those that it is built from."""
    while recipe is not None:
        yield recipe
        recipe = recipe.parent


def _child_files() -> Iterator[str]:
    """Yield the files that only children load."""
    for library in CHILD_LIBRARIES:
        found = importlib.util.find_spec(library)
        for place in (found.submodule_search_locations or ()) if found else ():
            yield from (str(path) for path in Path(place).rglob("*.py"))
            yield from (str(path) for path in Path(place).rglob("*.so"))


def _program_files(build_env: BuildEnvironment) -> Iterator[str]:
    """Yield the programs that are run by a build that changes nothing."""
    for name in (*_PROGRAMS, *([build_env.runtime] if build_env.runtime else RUNTIMES)):
        path = process.find_program(name)
        if path is not None:
            yield str(path)
