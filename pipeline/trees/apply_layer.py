"""Apply a layer's entries and whiteouts to a tree (image-spec, layer.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace

from pipeline.model.tree import Entry, EntryKind, Tree

_NEW_DIRECTORY = 0o755
"""Mode of a directory that a layer does not name, as image tools make it when they unpack."""


def apply_layer_entries(lower: Tree, upper: Iterable[Entry]) -> Tree:
    """Apply the entries of a layer, whiteouts among them, over `lower`.

    An entry without an owning package gets that of the path in `lower`, if it has one and the kind is the same. Neither
    tree nor layer must name all directories: one that only paths in it tell is hidden, or hides a file, like any other.
    """
    hidden: set[str] = set()
    removed: set[str] = set()
    added: dict[str, Entry] = {}
    parents: set[str] = set()
    for entry in upper:
        if entry.kind is not EntryKind.DIRECTORY:
            hidden.add(entry.path)
        if entry.kind is EntryKind.WHITEOUT:
            removed.add(entry.path)
        elif entry.kind is not EntryKind.OPAQUE:
            added[entry.path] = _owned(entry, lower)
        parents.update(_above(entry.path, parents))
    kept = {path: entry for path, entry in lower.entries.items() if path not in removed}
    if hidden:
        kept = _visible(kept, hidden)
    for path in parents - added.keys():
        if path in kept and kept[path].kind is not EntryKind.DIRECTORY:
            kept[path] = Entry(path, EntryKind.DIRECTORY, mode=_NEW_DIRECTORY)
    return Tree.of(kept | added)


def _owned(entry: Entry, lower: Tree) -> Entry:
    below = lower.get(entry.path)
    if entry.owner or below is None or not below.owner:
        return entry
    alike = {EntryKind.FILE, EntryKind.HARDLINK}
    same = below.kind is entry.kind or {below.kind, entry.kind} <= alike
    return replace(entry, owner=below.owner) if same else entry


def _above(path: str, known: Set[str]) -> Iterator[str]:
    """Yield the directories above `path`, up to one that is known."""
    while path:
        path = path.rpartition("/")[0]
        if path in known:
            return
        yield path


def _visible(entries: Mapping[str, Entry], hidden: Set[str]) -> dict[str, Entry]:
    """Return the entries that are beneath none of the `hidden` paths."""
    told: dict[str, bool] = {}
    found = {}
    for path, entry in entries.items():
        folder = path.rpartition("/")[0]
        known = told.get(folder)
        if known is None:
            known = told[folder] = folder in hidden or any(one in hidden for one in _above(folder, frozenset()))
        if path == "" or not known:
            found[path] = entry
    return found
