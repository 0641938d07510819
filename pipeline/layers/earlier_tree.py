"""The tree of an earlier layer, over which that of a changed one is written.

Where one package of a layer was updated, the files of the others stand in the store already. The changed layer's tree
then has its directories, the entries of the changed packages, and whiteouts for what is gone; mounted over the earlier
tree it shows what the layer has. Segments of equal identity have equal entries, attributes included, and the earlier
tree is under its seal; the content of every file, from wherever it will be mounted, goes into the diff_id all the same.

The earlier tree is always a whole one, so a layer has two trees at most, and is written whole again when less than half
of it is shared.

A whiteout hides a path in every layer below. Where one of them has what is only gone from this layer, the two trees
would show less than the layer's blob: that image is mounted with a whole tree of the layer (`hides_below`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, identity
from pipeline.layers.segments import Segment, recall_segment
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.model.tree import Entry
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

    None if there is none, or none that has half of this layer's content.
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
        folders = store.trees.kept_stack(known.diff_id)
    if folders is None or len(folders) != 1:
        return None
    return EarlierTree(known.diff_id, folders[0] / TREE_ROOT, shared)


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


def hidden_paths(root: Path, present: Set[str], directories: Set[str]) -> Iterator[str]:
    """Yield the paths of a tree that are not among `present`, without those below them.

    Below what is not among `directories`, the directories of the new tree, everything is hidden without a whiteout.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as found:
            for item in found:
                path = f"{folder}/{item.name}" if folder else item.name
                if path not in present:
                    yield path
                elif path in directories and item.is_dir(follow_symlinks=False):
                    folders.append(path)


def hides_below(earlier: Path, upper: Path, below: Sequence[Path]) -> bool:
    """Return whether mounting `upper` over `earlier` hides something of the trees below both.

    That is what both together do and the layer by itself would not: whiteouts, and directories in the place of an
    earlier file or symlink, which end the merging of directories.
    """
    folders = [""]
    while below and folders:
        folder = folders.pop()
        with os.scandir(upper / folder) as found:
            for item in found:
                path = f"{folder}/{item.name}" if folder else item.name
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
                    hides = not _is_directory(earlier / path) and os.path.lexists(earlier / path)
                else:
                    hides = stat.S_ISCHR(item.stat(follow_symlinks=False).st_mode)
                if hides and any(_has(tree, path) for tree in below):
                    return True
    return False


def _has(tree: Path, path: str) -> bool:
    """Return whether a tree has a path, symlinks in it not followed."""
    *folders, last = path.split("/")
    for folder in folders:
        tree /= folder
        if not _is_directory(tree):
            return False
    return os.path.lexists(tree / last)


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _identity(composed: ComposedLayer, compression: Compression) -> Digest:
    names = sorted({f"{part.nevra.name}.{part.nevra.arch}" for part in composed.parts})
    return identity("earlier-tree", 1, layer=composed.name, packages=names, codec=compression.value)


def _shared(part: Part, name: Digest, order: tuple[int, ...], store: Store) -> SharedSegment | None:
    if sorted(order) != list(range(len(part.entries))):
        return None
    segment = recall_segment(name, store)
    if segment is None:
        return None
    return SharedSegment(segment, tuple(part.entries[place][1] for place in order))


def _content_size(part: Part) -> int:
    return sum(entry.size for _, entry in part.entries)
