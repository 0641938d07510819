"""Compare two images on mirrors or in layouts: packages, settings, files, layers, sizes.

They are read from their layers, whose digests and diff_ids are verified meanwhile. Start reading at `compare_images`.

Each layer is streamed once for the digests of its files. The RPM databases are looked up in the tree of all layers, so
a layer that has one is read up to it once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.digest import DiffId, Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.layers.unpack_layer import LAYER_ENTRIES_LIMIT, layer_members
from pipeline.lazy_dataclasses import dataclass
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
from pipeline.oci import choose_image, flatten_config, load_layers, read_layout_images
from pipeline.packages import all_changelogs, named_fixes, read_all_installed, require_database_size
from pipeline.prepare import BuildEnvironment
from pipeline.progress import Task, task
from pipeline.release.current_images import mirror_access
from pipeline.streams import LAYER_SIZE_LIMIT
from pipeline.trees import apply_layer_entries, diff_trees, resolve_symlinks

_EMPTY = Tree.of({})


def compare_images(
    before: Address | Path, after: Address | Path, build_env: BuildEnvironment, *, arch: str = ""
) -> Comparison:
    """Compare one image or index with another: references on mirrors, or layouts.

    Images are paired by platform; two single images are compared whatever their platforms. With `arch`, only the image
    for it of each is.

    Raises UsageError `reference-missing`, `not-a-layout`, `platforms-differ`, `architecture-missing`,
    VerificationError.
    """
    earlier, later = _look(before, arch, build_env), _look(after, arch, build_env)
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


def _look(reference: Address | Path, arch: str, build_env: BuildEnvironment) -> _Side:
    if isinstance(reference, Path):
        digest, images = read_layout_images(reference)
    else:
        with mirror_access(build_env).repository(reference) as repository:
            held = read_published(repository, reference.reference)
        digest, images = held.digest, held.images
    if not arch:
        return _Side(digest, images)
    one = choose_image(images, arch, str(reference))
    return _Side(one.digest, (one,))


def _bring(reference: Address | Path, image: Image, build_env: BuildEnvironment) -> None:
    """Bring the layers of an image into the store."""
    if isinstance(reference, Path):
        load_layers(reference, image, store=build_env.store)
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
    """The entries of one layer, and the bytes of its files together."""

    entries: tuple[Entry, ...]
    content: int


@dataclass(frozen=True, slots=True)
class _Inside:
    tree: Tree
    content: int
    databases: Mapping[str, bytes]


class _Reader:
    """Reader of images that reads each layer once, but for RPM databases.

    The layers that two images have in common are the lowest, and are stacked once as well.
    """

    def __init__(self, build_env: BuildEnvironment) -> None:
        self._build_environment = build_env
        self._layers: dict[DiffId, _LayerContent] = {}
        self._stacks: dict[tuple[DiffId, ...], Tree] = {(): _EMPTY}

    def inside(self, image: Image) -> _Inside:
        """Read the tree, the content size and the RPM databases of an image.

        Raises VerificationError.
        """
        below: tuple[DiffId, ...] = ()
        content = 0
        for layer in image.layers:
            read = self._layer(layer)
            here = (*below, layer.diff_id)
            if here not in self._stacks:
                self._stacks[here] = apply_layer_entries(self._stacks[below], _named(read.entries, self._stacks[below]))
            below = here
            content += read.content
        tree = self._stacks[below]
        return _Inside(tree, content, dict(self._databases(image, tree)))

    def _layer(self, layer: Layer) -> _LayerContent:
        if layer.diff_id not in self._layers:
            with task(self._build_environment.progress, "read", layer.name, unit="bytes") as running:
                self._layers[layer.diff_id] = self._read(_bounded(layer), running)
        return self._layers[layer.diff_id]

    def _read(self, layer: Layer, running: Task) -> _LayerContent:
        entries: list[Entry] = []
        content = 0
        for member in layer_members(layer, store=self._build_environment.store):
            if len(entries) >= LAYER_ENTRIES_LIMIT:
                raise VerificationError(
                    "layer-malformed", f"layer '{layer.name}' has more than {LAYER_ENTRIES_LIMIT} entries"
                )
            entry = member.entry
            if entry.kind is EntryKind.FILE:
                found = hashlib.sha256()
                for piece in member.pieces():
                    found.update(piece)
                entry = replace(entry, content=Digest(found.hexdigest()))
                content += entry.size
                running.advance(entry.size)
            entries.append(entry)
        return _LayerContent(tuple(entries), content)

    def _databases(self, image: Image, tree: Tree) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of each RPM database in the tree of an image, likeliest first."""
        size, known = 0, set[Digest]()
        for path in database_paths(dict(image.config.labels)):
            real = resolve_symlinks(path, lambda one: _link(tree.get(one)))
            file = tree.get(real) if real is not None else None
            if file is not None and file.kind is EntryKind.HARDLINK:
                raise VerificationError("layer-malformed", f"the hard link '{path}' names no file in the image")
            if file is None or file.content is None or file.content in known:
                continue
            known.add(file.content)
            size += file.size
            require_database_size(size, path)
            yield path, self._content(image, file.content)

    def _content(self, image: Image, content: Digest) -> bytes:
        """Read a file of an image again, by its digest."""
        for layer in reversed(image.layers):
            entries = self._layers[layer.diff_id].entries
            named = {(entry.path, entry.size) for entry in entries if entry.content == content}
            for member in layer_members(_bounded(layer), store=self._build_environment.store) if named else ():
                if (member.entry.path, member.entry.size) in named:
                    data = b"".join(member.pieces())
                    if Digest.of(data) == content:
                        return data
        raise VerificationError("layer-malformed", f"the image's layers have no file of {content} any more")


def _bounded(layer: Layer) -> Layer:
    """Return the layer with a limit on its size.

    One that was made elsewhere has no annotation with it.
    """
    return layer if layer.tar_size else replace(layer, tar_size=LAYER_SIZE_LIMIT)


def _link(entry: Entry | None) -> str | None:
    return entry.link if entry is not None and entry.kind is EntryKind.SYMLINK else None


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
        named = replace(file, path=entry.path) if file is not None else entry
        if file is not None:
            files[entry.path] = named  # Another hard link may name this one.
        yield named


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
        packages=_packages(before.databases, after.databases),
        settings=_settings(flatten_config(old.config_bytes), flatten_config(new.config_bytes)),
        files=files,
        touched=touched,
        layers=layers,
        dropped=tuple(layer for layer in _layers(old, new) if not layer.shared),
        download=_download(old, new),
        weights=(_weight(old, before), _weight(new, after)),
    )


def _packages(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> tuple[PackageDifference, ...] | None:
    if not before and not after:
        return None
    old, new = ({one.nevra for one in read_all_installed(databases)} for databases in (before, after))
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


def _changelogs(
    databases: Mapping[str, bytes], wanted: Sequence[Nevra | None]
) -> Mapping[Nevra, tuple[ChangelogEntry, ...]]:
    return all_changelogs(databases.values(), {one for one in wanted if one is not None}) if wanted else {}


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
