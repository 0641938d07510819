"""Collect all that a night read into the snapshot that the next night compares.

So the next one can find quickly whether anything changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking
from pipeline.model.configuration import oci_architecture
from pipeline.model.night_record import Product
from pipeline.model.platform import PLAIN_ACCESS, Platform
from pipeline.nightly.catalogue import recipe_files, recipe_templates
from pipeline.nightly.night_planner import Planner
from pipeline.nightly.no_change import (
    SNAPSHOT_DOCUMENT_LIMIT,
    FetchDocument,
    Snapshot,
    take_snapshot,
)
from pipeline.packages import library_files
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.sandbox import find_emulator, find_runtime
from pipeline.urls import public_url

_REMOTE_SCHEMES = ("http:", "https:", "file:")

_TEMPLATES_FOLDER = "templates"


def night_snapshot(
    planner: Planner, products: tuple[Product, ...], places: tuple[Path, ...], made: Digest, get: FetchDocument
) -> Snapshot | None:
    """Return a snapshot of everything that a night has read of which nothing failed.

    None if bytes cannot be compared: a metalink's change from hour to hour. So if a file was left out of the catalogue,
    of which each night warns.
    """
    settings = planner.settings
    if planner.catalogue.left_out:
        return None
    files: set[Path] = {settings.repositories}
    folders = {place for place in places if place.is_dir()}
    for entry in planner.catalogue.entries:
        if entry.recipe is not None:
            files |= recipe_files(entry.recipe)
            files.add(entry.path.absolute())
            searched = tuple(_template_folders(entry.recipe.sources))
            folders |= set(searched)
            looked_for = planner.published.looked_for_templates(entry.name)
            files |= {folder / name for folder in searched for name in looked_for}
            files |= recipe_templates(entry.recipe)
            for folder in entry.recipe.template_folders:
                if folder.name == _TEMPLATES_FOLDER:
                    files |= {path for path in folder.rglob("*") if path.is_file()}
    documents: list[tuple[str, Digest]] = []
    for platform_state in planner.platform_states:
        platform_files, platform_folders = watched_paths(platform_state.platform)
        files |= platform_files
        folders |= platform_folders
        own = platform_variables(platform_state.platform, platform_state.arch, planner.build_env.environment)
        for repository in platform_state.platform.repositories:
            expanded = expand_repository(repository, own, planner.build_env.environment)
            if not settings.locked and (expanded.metalink or expanded.mirrorlist):
                return None
            if expanded.access != PLAIN_ACCESS:
                return None  # Its documents cannot be fetched without the repository's credentials.
            for key in expanded.keys:
                if key.startswith(_REMOTE_SCHEMES):
                    documents.append((key, Digest.of(get(key, SNAPSHOT_DOCUMENT_LIMIT))))
                else:
                    files.add(Path(key))
        documents += [(f"{one.base_urls[0]}/repodata/repomd.xml", one.repomd) for one in platform_state.repositories]
    if any(public_url(url) != url for url, _ in documents):
        return None  # The snapshot is kept in the store, where a password does not belong.
    return take_snapshot(
        made,
        files=files,
        folders=folders,
        documents=documents,
        programs=(find_runtime(settings.runtime).path, *library_files(), *_interpreters(planner)),
        environment=planner.build_env.environment,
        tags=[
            (one.name, one.published.immutable, one.published.digest)
            for one in products
            if one.published.digest is not None
        ],
    )


def watched_paths(platform: Platform) -> tuple[set[Path], set[Path]]:
    """Return the files and the folders that a platform's definition was read from.

    It depends on the files' content and on the folders' listing.
    """
    folders = {path for path in platform.watched if path.is_dir()}
    inside = {one for folder in folders for one in folder.iterdir() if one.is_file()}
    return inside | (set(platform.watched) - folders), folders


def _interpreters(planner: Planner) -> Iterator[Path]:
    """Yield the emulators that images of a night's architectures are tested under here."""
    for arch in sorted({one.arch for one in planner.platform_states}):
        with contextlib.suppress(EnvironmentLacking):
            emulator = find_emulator(oci_architecture(arch))
            if emulator is not None:
                yield Path(emulator.interpreter)


def _template_folders(sources: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the folders that are searched for templates, also those that do not exist yet."""
    for source in sources:
        yield from (source.parent, source.parent / _TEMPLATES_FOLDER, source.parent.parent / _TEMPLATES_FOLDER)
