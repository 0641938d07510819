"""The list of all that a night read, for the snapshot that the next night compares.

So the next one can tell at once whether any of it is another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.digest import Digest
from pipeline.model.night import Product
from pipeline.nightly.catalogue import files_of, templates_of
from pipeline.nightly.planning import Planner
from pipeline.nightly.quiet import DOCUMENT_LIMIT, Get, Watch, watch
from pipeline.packages import library_files
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.sandbox import find_runtime
from pipeline.urls import public

REMOTE = ("http:", "https:", "file:")

TEMPLATES = "templates"


def watched(
    planner: Planner, products: tuple[Product, ...], places: tuple[Path, ...], made: Digest, get: Get
) -> Watch | None:
    """Return a snapshot of everything that a night has read of which nothing failed.

    None if it cannot be told by bytes: a metalink's differ from hour to hour.
    """
    making = planner.making
    files: set[Path] = {making.repositories}
    folders = {place for place in places if place.is_dir()}
    for entry in planner.catalogue.entries:
        if entry.recipe is not None:
            files |= files_of(entry.recipe)
            files.add(entry.path.absolute())
            folders |= set(_template_folders(entry.recipe.sources))
            files |= templates_of(entry.recipe)
            for folder in entry.recipe.template_folders:
                if folder.name == TEMPLATES:
                    files |= {path for path in folder.rglob("*") if path.is_file()}
    documents: list[tuple[str, Digest]] = []
    for offer in planner.offers:
        own = platform_variables(offer.platform, offer.arch, planner.workshop.environment)
        for repository in offer.platform.repositories:
            expanded = expand_repository(repository, own, planner.workshop.environment)
            if not making.locked and (expanded.metalink or expanded.mirrorlist):
                return None
            for key in expanded.keys:
                if key.startswith(REMOTE):
                    documents.append((key, Digest.of(get(key, DOCUMENT_LIMIT))))
                else:
                    files.add(Path(key))
        documents += [(f"{one.base_urls[0]}/repodata/repomd.xml", one.repomd) for one in offer.repositories]
    if any(public(url) != url for url, _ in documents):
        return None  # What is remembered stands in the store, and a password does not belong there.
    return watch(
        made,
        files=files,
        folders=folders,
        documents=documents,
        programs=(find_runtime(making.runtime).path, *library_files()),
        environment=planner.workshop.environment,
        tags=[
            (one.name, one.published.immutable, one.published.digest)
            for one in products
            if one.published.digest is not None
        ],
    )


def _template_folders(sources: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the folders in which templates are looked for, also those that do not exist yet."""
    for source in sources:
        yield from (source.parent, source.parent / TEMPLATES, source.parent.parent / TEMPLATES)
