"""The tree of an earlier layer, over which that of a changed one is written.

Where one package of a layer was updated, the files of the others stand in the store already. The changed layer's tree
then has its directories and the entries of the changed packages; mounted over the earlier tree it shows what the layer
has. Segments of equal identity have equal entries, attributes included, and the earlier tree is under its seal; the
content of every file, from wherever it will be mounted, goes into the diff_id all the same.

The earlier tree is always a whole one, so a layer has two trees at most, and is written whole again when less than half
of it is shared.

Such a tree only adds and replaces; it has no whiteouts. A whiteout hides its path in every layer of the image below,
not in the earlier tree alone, and so does a directory in the place of an earlier file. A layer that lacks a path of the
earlier tree, or has a directory where that has something else, or the reverse, is written whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, identity
from pipeline.layers.segments import Segment, recall_segment
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT
from pipeline.trees import ComposedLayer, Part


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """A segment whose entries the earlier tree has, in the order of the segment."""

    segment: Segment
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class EarlierTree:
    """A whole tree in the store, and its segments, by their places in the changed layer."""

    diff_id: DiffId
    root: Path
    shared: Mapping[int, SharedSegment]


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A segment's identity, and the order of its entries.

    `places` are their places in the package's part.
    """

    name: Digest
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """A whole tree, and the segments of its layer."""

    diff_id: DiffId
    segments: tuple[_Ordered, ...]


Segments = Sequence[tuple[Part, Digest]]
"""The parts of a layer with the identities of their segments."""


def find_earlier_tree(
    composed: ComposedLayer, segments: Segments, compression: Compression, store: Store
) -> EarlierTree | None:
    """Return the tree of an earlier layer of packages of the same names.

    None if there is none that has half of this layer's content, and nothing that would have to be hidden.
    """
    known = store.recall_as(_identity(composed, compression), lambda value: from_json(_Known, value))
    if known is None:
        return None
    orders = {one.name: one.places for one in known.segments}
    shared = {
        at: found
        for at, (part, name) in enumerate(segments)
        if name in orders and (found := _shared(part, name, orders[name], store)) is not None
    }
    every, kept = sum(_content_size(part) for part, _ in segments), sum(_content_size(segments[at][0]) for at in shared)
    if not shared or 2 * kept < every:
        return None
    with store.locked(f"tree-{known.diff_id.hex}"):
        folder = store.trees.kept(known.diff_id)
        if folder is None or not _keeps_every_path(folder / TREE_ROOT, *_paths(composed, segments)):
            return None
    return EarlierTree(known.diff_id, folder / TREE_ROOT, shared)


def may_have_earlier_tree(composed: ComposedLayer, compression: Compression, store: Store) -> bool:
    """Return whether the store has a record of a tree of a layer of packages of the same names.

    It is not read, so it may turn out to be of no use.
    """
    return store.result(_identity(composed, compression)).exists()


def remember_tree(
    composed: ComposedLayer,
    segments: Segments,
    orders: Sequence[tuple[int, ...]],
    *,
    diff_id: DiffId,
    compression: Compression,
    store: Store,
) -> None:
    """Remember a layer's whole tree in the store, and the order of each segment's entries."""
    known = _Known(diff_id, tuple(_Ordered(name, order) for (_, name), order in zip(segments, orders, strict=True)))
    store.remember(_identity(composed, compression), to_json(known), sync=False)


def _keeps_every_path(root: Path, paths: Set[str], directories: Set[str]) -> bool:
    """Return whether `paths` have all that is below `root`, directories as directories.

    `directories` are those of `paths` that are directories. A tree over `root` then only adds and replaces.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as found:
            for item in found:
                path = f"{folder}/{item.name}" if folder else item.name
                is_directory = item.is_dir(follow_symlinks=False)
                if path not in paths or is_directory != (path in directories):
                    return False
                if is_directory:
                    folders.append(path)
    return True


def _identity(composed: ComposedLayer, compression: Compression) -> Digest:
    names = sorted({f"{part.nevra.name}.{part.nevra.arch}" for part in composed.parts})
    return identity("earlier-tree", 1, layer=composed.name, packages=names, codec=compression.value)


def _paths(composed: ComposedLayer, segments: Segments) -> tuple[Set[str], Set[str]]:
    """Return the paths of a layer, and those of its directories."""
    entries = [*composed.directories, *(entry for part, _ in segments for _, entry in part.entries)]
    return {entry.path for entry in entries}, {one.path for one in entries if one.kind is EntryKind.DIRECTORY}


def _shared(part: Part, name: Digest, order: tuple[int, ...], store: Store) -> SharedSegment | None:
    if sorted(order) != list(range(len(part.entries))):
        return None
    segment = recall_segment(name, store)
    if segment is None:
        return None
    return SharedSegment(segment, tuple(part.entries[place][1] for place in order))


def _content_size(part: Part) -> int:
    return sum(entry.size for _, entry in part.entries)
