"""Apply a layer's entries and whiteouts to a tree (image-spec, layer.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.model.tree import Entry, EntryKind, Tree


def apply_layer_entries(lower: Tree, upper: Iterable[Entry]) -> Tree:
    """Apply the entries of a layer, whiteouts among them, over `lower`.

    An entry without an owning package gets that of the path in `lower`, if it has one and the kind is the same.
    """
    entries = dict(lower.entries)
    added: dict[str, Entry] = {}
    for entry in upper:
        if entry.kind is EntryKind.OPAQUE or entry.kind is not EntryKind.DIRECTORY:
            for gone in _paths_below(entry.path, entries):
                del entries[gone]
        if entry.kind is EntryKind.WHITEOUT:
            entries.pop(entry.path, None)
        elif entry.kind is not EntryKind.OPAQUE:
            added[entry.path] = _owned(entry, lower)
    return Tree.of(entries | added)


def _owned(entry: Entry, lower: Tree) -> Entry:
    below = lower.get(entry.path)
    if entry.owner or below is None or not below.owner:
        return entry
    alike = {EntryKind.FILE, EntryKind.HARDLINK}
    same = below.kind is entry.kind or {below.kind, entry.kind} <= alike
    return replace(entry, owner=below.owner) if same else entry


def _paths_below(path: str, entries: dict[str, Entry]) -> list[str]:
    """List the paths below `path`; none if it is no directory."""
    below = entries.get(path)
    if path and (below is None or below.kind is not EntryKind.DIRECTORY):
        return []
    return [one for one in entries if one.startswith(f"{path}/" if path else "") and one != path]
