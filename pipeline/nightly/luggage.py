"""The files that a task reads, taken to the worker that does it: so a worker needs no checkout of the catalogue."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.model.recipe import FileKind, Recipe
from pipeline.resolve import lock_path

LIMIT = 32 << 20
"""Bytes of one task's files, packed. They pass the scheduler, which keeps them until the task has ended."""


def files_of_recipe(recipe: Recipe) -> tuple[Path, ...]:
    """The files and folders that building and testing a recipe may read: its own, its templates, and those of what it
    is built from."""
    return tuple(dict.fromkeys(path for one in _chain(recipe) for path in _read_by(one)))


def _chain(recipe: Recipe) -> Iterator[Recipe]:
    one: Recipe | None = recipe
    while one is not None:
        yield one
        one = one.parent


def _read_by(recipe: Recipe) -> Iterator[Path]:
    folder = recipe.path.parent
    yield recipe.path
    yield lock_path(recipe.path)
    yield from recipe.sources
    yield from recipe.template_folders
    yield from (folder / plan.origin for plan in recipe.files if plan.kind is FileKind.SOURCE)
    yield from (folder / item.path for layer in recipe.layers for item in layer.local)
    if recipe.smoke.upgrade_from:
        yield folder / recipe.smoke.upgrade_from


def pack(files: Iterable[Path]) -> bytes:
    """Files and folders under their absolute paths; links are followed, and what is not there is left out. Raises
    UsageError `files-too-large`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1, dereference=True) as archive:
        for path in files:
            if path.exists():
                archive.add(path, os.path.normpath(path.absolute()).lstrip("/"))
            if packed.tell() > LIMIT:
                raise UsageError(
                    "files-too-large",
                    f"the files that it is made from have more than {LIMIT >> 20} MiB, packed, up to {path}",
                    hint="put large ones into an RPM package; they would pass the scheduler again for every task",
                )
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Put the files into a folder, below their absolute paths."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        for member in archive:
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            if content is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(content.read())
                place.chmod(member.mode)
