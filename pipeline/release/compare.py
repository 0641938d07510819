"""Compare two images on mirrors or in layouts: packages, settings, files, layers, sizes.

They are read from their layers, whose digests and diff_ids are verified meanwhile. Start reading at `compare_images`.

Each layer is streamed once: the digests of its files are kept, and the content of its RPM database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.digest import DiffId, Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.layers.unpack_layer import LAYER_ENTRIES_LIMIT, layer_members
from pipeline.mirror.address import Address
from pipeline.mirror.published import read_published
from pipeline.model.comparison import (
    ComparedLayer,
    Comparison,
    FileDifference,
    ImageComparison,
    ImageSize,
    PackageDifference,
    SettingDifference,
)
from pipeline.model.header import ChangelogEntry
from pipeline.model.image import Image, Layer
from pipeline.model.package import Nevra
from pipeline.model.rpm_database import database_paths
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.oci import flatten_config, load_layout_image, read_layout
from pipeline.packages import (
    DATABASE_LIMIT,
    installed_changelogs,
    named_fixes,
    read_installed,
)
from pipeline.prepare import BuildEnvironment
from pipeline.progress import Task, task
from pipeline.release.current_images import mirror_access
from pipeline.streams import LAYER_SIZE_LIMIT
from pipeline.trees import apply_layer_entries, diff_trees

_EMPTY = Tree.of({})


def compare_images(before: Address | Path, after: Address | Path, build_env: BuildEnvironment) -> Comparison:
    """Compare one image or index with another: references on mirrors, or layouts.

    Images are paired by platform; two single images are compared whatever their platforms.

    Raises UsageError `reference-missing`, `not-a-layout`, `platforms-differ`, VerificationError.
    """
    earlier, later = _look(before, build_env), _look(after, build_env)
    pairs = _pairs(earlier, later)
    if not pairs:
        raise UsageError(
            "platforms-differ",
            f"the images are for different platforms: {', '.join(earlier.platforms)}; {', '.join(later.platforms)}",
            hint="give their digests to compare them anyway",
        )
    reader = _Reader(build_env)
    images = []
    for old, new in pairs:
        _bring(before, old, build_env)
        _bring(after, new, build_env)
        images.append(_compared(old, new, reader))
    paired = {_platform(image) for pair in pairs for image in pair}
    return Comparison(
        earlier.digest,
        later.digest,
        tuple(images),
        only_before=tuple(one for one in earlier.platforms if one not in paired),
        only_after=tuple(one for one in later.platforms if one not in paired),
    )


# --- the images ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Side:
    """The digest of one reference, and its images."""

    digest: Digest
    images: tuple[Image, ...]

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(_platform(image) for image in self.images)


def _look(reference: Address | Path, build_env: BuildEnvironment) -> _Side:
    if isinstance(reference, Path):
        image = read_layout(reference)
        return _Side(image.digest, (image,))
    with mirror_access(build_env).repository(reference) as repository:
        held = read_published(repository, reference.reference)
        return _Side(held.digest, held.images)


def _bring(reference: Address | Path, image: Image, build_env: BuildEnvironment) -> None:
    """Bring the layers of an image into the store."""
    if isinstance(reference, Path):
        load_layout_image(reference, store=build_env.store)
        return
    if all(build_env.store.sound(layer.blob.digest) for layer in image.layers):
        return
    with mirror_access(build_env).repository(reference) as repository:
        for layer in image.layers:
            repository.fetch_blob(layer.blob, build_env.store)


def _pairs(earlier: _Side, later: _Side) -> list[tuple[Image, Image]]:
    if len(earlier.images) == len(later.images) == 1:
        return [(earlier.images[0], later.images[0])]
    by_platform = {_platform(image): image for image in earlier.images}
    return [(by_platform[_platform(image)], image) for image in later.images if _platform(image) in by_platform]


def _platform(image: Image) -> str:
    config = image.config
    return f"{config.os}/{config.architecture}{config.variant and '/' + config.variant}"


# --- their contents --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LayerContent:
    """The content of one layer.

    `content`: bytes of its files; `database`: the RPM database's bytes, if the layer has one.
    """

    entries: tuple[Entry, ...]
    content: int
    database: bytes | None


@dataclass(frozen=True, slots=True)
class _Inside:
    tree: Tree
    content: int
    database: bytes | None


class _Reader:
    """Reader of images that reads each layer once.

    The layers that two images have in common are the lowest, and are stacked once as well.
    """

    def __init__(self, build_env: BuildEnvironment) -> None:
        self._build_environment = build_env
        self._layers: dict[tuple[DiffId, tuple[str, ...]], _LayerContent] = {}
        self._stacks: dict[tuple[DiffId, ...], Tree] = {(): _EMPTY}

    def inside(self, image: Image) -> _Inside:
        """Read the tree, the content size and the RPM database of an image.

        Raises VerificationError.
        """
        below: tuple[DiffId, ...] = ()
        content, database = 0, None
        paths = tuple(path.removeprefix("/") for path in database_paths(dict(image.config.labels)))
        for layer in image.layers:
            read = self._layer(layer, paths)
            here = (*below, layer.diff_id)
            if here not in self._stacks:
                self._stacks[here] = apply_layer_entries(self._stacks[below], _named(read.entries, self._stacks[below]))
            below = here
            content += read.content
            database = database if read.database is None else read.database
        return _Inside(self._stacks[below], content, database)

    def _layer(self, layer: Layer, paths: tuple[str, ...]) -> _LayerContent:
        if (layer.diff_id, paths) not in self._layers:
            # A layer that was made elsewhere has no annotation with its size.
            bounded = layer if layer.tar_size else replace(layer, tar_size=LAYER_SIZE_LIMIT)
            with task(self._build_environment.progress, "read", layer.name, unit="bytes") as running:
                self._layers[layer.diff_id, paths] = self._read(bounded, running, paths)
        return self._layers[layer.diff_id, paths]

    def _read(self, layer: Layer, running: Task, paths: tuple[str, ...]) -> _LayerContent:
        entries: list[Entry] = []
        databases: dict[str, bytes] = {}
        content = 0
        for member in layer_members(layer, store=self._build_environment.store):
            if len(entries) >= LAYER_ENTRIES_LIMIT:
                raise VerificationError(
                    "layer-malformed", f"layer '{layer.name}' has more than {LAYER_ENTRIES_LIMIT} entries"
                )
            entry = member.entry
            if entry.kind is EntryKind.FILE:
                kept = bytearray() if entry.path in paths and entry.size <= DATABASE_LIMIT else None
                found = hashlib.sha256()
                for piece in member.pieces():
                    found.update(piece)
                    if kept is not None:
                        kept += piece
                entry = replace(entry, content=Digest(found.hexdigest()))
                content += entry.size
                running.advance(entry.size)
                if kept is not None:
                    databases[entry.path] = bytes(kept)
            entries.append(entry)
        database = next((databases[path] for path in paths if path in databases), None)
        return _LayerContent(tuple(entries), content, database)


def _named(entries: Sequence[Entry], lower: Tree) -> Iterator[Entry]:
    """Yield the entries of a layer, with hard links replaced by their files.

    These are in the layer or below it.
    """
    files = {entry.path: entry for entry in entries if entry.kind is EntryKind.FILE}
    for entry in entries:
        if entry.kind is not EntryKind.HARDLINK:
            yield entry
            continue
        file = files.get(entry.link) or lower.get(entry.link)
        yield replace(file, path=entry.path) if file is not None else entry


# --- their differences -----------------------------------------------------------------------------------


def _compared(old: Image, new: Image, reader: _Reader) -> ImageComparison:
    before, after = reader.inside(old), reader.inside(new)
    files = tuple(
        FileDifference(change.path, change.old, change.new, change.what)
        for change in diff_trees(before.tree, after.tree, ignore=("owner", "mtime"))
    )
    told = {file.path for file in files}
    touched = sum(
        entry.mtime != earlier.mtime
        for path, entry in after.tree.entries.items()
        if path not in told and (earlier := before.tree.get(path)) is not None
    )
    layers = _layers(new, old)
    return ImageComparison(
        platform=_platform(new),
        before=old.digest,
        after=new.digest,
        references=(f"{old.name} {old.reference}".strip(), f"{new.name} {new.reference}".strip()),
        packages=_packages(before.database, after.database),
        settings=_settings(flatten_config(old.config_bytes), flatten_config(new.config_bytes)),
        files=files,
        touched=touched,
        layers=layers,
        dropped=tuple(layer for layer in _layers(old, new) if not layer.shared),
        download=_download(old, new),
        weights=(_weight(old, before), _weight(new, after)),
    )


def _packages(before: bytes | None, after: bytes | None) -> tuple[PackageDifference, ...] | None:
    if before is None and after is None:
        return None
    old, new = (
        {one.nevra for one in read_installed(database)} if database is not None else set()
        for database in (before, after)
    )
    found: list[tuple[Nevra | None, Nevra | None]] = []
    for name, arch in sorted({(one.name, one.arch) for one in old ^ new}):
        gone = sorted(one for one in old - new if (one.name, one.arch) == (name, arch))
        come = sorted(one for one in new - old if (one.name, one.arch) == (name, arch))
        if len(gone) == len(come):
            found += zip(gone, come, strict=True)
        else:
            found += [*((one, None) for one in gone), *((None, one) for one in come)]
    changed = [pair for pair in found if None not in pair]
    told = _changelogs(before, [one for one, _ in changed]), _changelogs(after, [one for _, one in changed])
    return tuple(_package(one, other, told) for one, other in found)


def _changelogs(database: bytes | None, wanted: Sequence[Nevra | None]) -> Mapping[Nevra, tuple[ChangelogEntry, ...]]:
    if database is None or not wanted:
        return {}
    return installed_changelogs(database, {one for one in wanted if one is not None})


def _package(
    before: Nevra | None,
    after: Nevra | None,
    told: tuple[Mapping[Nevra, tuple[ChangelogEntry, ...]], Mapping[Nevra, tuple[ChangelogEntry, ...]]],
) -> PackageDifference:
    one = after or before
    assert one is not None
    if before is None or after is None:
        return PackageDifference(one.name, one.arch, before, after)
    known = told[0].get(before, ())
    newest = max((entry.time for entry in known), default=0)
    # Old entries are not new, although the former changelog may have been truncated before them.
    entries = tuple(entry for entry in told[1].get(after, ()) if entry not in known and entry.time >= newest)
    return PackageDifference(one.name, one.arch, before, after, entries, named_fixes(entries))


def _settings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[SettingDifference, ...]:
    return tuple(
        SettingDifference(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _layers(image: Image, other: Image) -> tuple[ComparedLayer, ...]:
    theirs = {layer.blob.digest for layer in other.layers}
    return tuple(
        ComparedLayer(layer.name, layer.blob.digest, layer.blob.size, layer.blob.digest in theirs)
        for layer in image.layers
    )


def _download(old: Image, new: Image) -> int:
    had, wanted = (
        {
            part.digest: part.size
            for part in (*(layer.blob for layer in image.layers), image.config_descriptor, image.manifest_descriptor)
        }
        for image in (old, new)
    )
    return sum(size for digest, size in wanted.items() if digest not in had)


def _weight(image: Image, inside: _Inside) -> ImageSize:
    return ImageSize(sum({layer.blob.digest: layer.blob.size for layer in image.layers}.values()), inside.content)
