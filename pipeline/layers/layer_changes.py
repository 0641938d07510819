"""Collect what a tree on disk changes in the layers below it, as entries of one more layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from pathlib import Path

from pipeline.digest import digest_file
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind, Tree


@dataclass(slots=True)
class LayerChanges:
    """The changes to the lower tree, collected path by path.

    Entries that equal the lower ones are left out. Entries get `build_time` as their time, except those with content
    and time of `lower`.
    """

    lower: Tree
    build_time: int
    directories: dict[str, Entry] = field(default_factory=dict)
    changed: dict[str, tuple[Entry, bytes | Path]] = field(default_factory=dict)
    links: dict[tuple[int, int], list[tuple[Entry, Path, bool]]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.lower.entries:
            parent, _, last = path.rpartition("/")
            if last:
                self.children.setdefault(parent, []).append(last)

    def result(self) -> list[tuple[Entry, bytes | Path]]:
        """Return changed entries and their parent directories, sorted by path."""
        self._link_up()
        root = self.lower.get("")
        if root is not None:
            self.directories[""] = replace(root, mtime=self.build_time)
            self.changed[""] = (self.directories[""], b"")
        for path in [*self.changed]:
            for parent in parents_of(path):
                self.changed.setdefault(parent, (self.directories[parent], b""))
        return [self.changed[path] for path in sorted(self.changed)]

    def add_directory(self, entry: Entry) -> None:
        """Add a directory, whose content is added by itself."""
        self.directories[entry.path] = entry
        below = self.below(entry.path)
        if below is None or not _same_metadata(entry, below):
            self.changed[entry.path] = (entry, b"")

    def add_leaf(self, entry: Entry, place: Path, *, inode: tuple[int, int], names: int, mtime: int) -> None:
        """Add what is no directory: its entry, and its file's inode, number of names and time."""
        below = self.below(entry.path)
        same = False
        if below is not None and below.kind is entry.kind and below.link == entry.link:
            same_content = entry.kind is not EntryKind.FILE or (
                below.size == entry.size and digest_file(place) == below.content
            )
            same = same_content and _same_metadata(entry, below)
            if same_content and mtime == below.mtime:
                entry = replace(entry, mtime=below.mtime)
        if entry.kind is EntryKind.FILE and names > 1:
            self.links.setdefault(inode, []).append((entry, place, same))
        elif not same:
            self.changed[entry.path] = (entry, place if entry.kind is EntryKind.FILE else b"")

    def below(self, path: str) -> Entry | None:
        """Return the lower entry, a hard link as its file."""
        entry = self.lower.get(path)
        if entry is not None and entry.kind is EntryKind.HARDLINK:
            named = self.lower.get(entry.link)
            return replace(named, path=path) if named else None
        return entry

    def remove(self, path: str) -> None:
        """Add the removal of a lower path."""
        self.changed[path] = (Entry(path, EntryKind.WHITEOUT, mtime=self.build_time), b"")

    def _link_up(self) -> None:
        """Write all names of a file in the upper directory if one of its hard links is new.

        A layer cannot have a hard link to a file of a lower layer.
        """
        for names in self.links.values():
            if all(same for _, _, same in names):
                continue
            names.sort(key=lambda name: name[0].path)
            first, content, _ = names[0]
            self.changed[first.path] = (first, content)
            for entry, _, _ in names[1:]:
                self.changed[entry.path] = (replace(entry, kind=EntryKind.HARDLINK, link=first.path, size=0), b"")


def parents_of(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _same_metadata(a: Entry, b: Entry) -> bool:
    return (a.kind, a.mode, a.uid, a.gid, a.xattrs) == (b.kind, b.mode, b.uid, b.gid, b.xattrs)
