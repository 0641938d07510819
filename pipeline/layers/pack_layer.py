"""Pack a layer from an overlay's upper directory, or from entries in memory.

Overlayfs marks a deleted path by a character device 0:0 and an opaque directory by an attribute; a layer marks both by
`.wh.` names (image-spec, layer.md). An opaque directory is written as one whiteout for each name that it hides, as the
specification prefers, so the layer depends on what was removed and not on how.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, chunks, digest_file
from pipeline.errors import BuildError
from pipeline.layers.chunk_writer import COMPRESSION_WORKERS, ChunkWriter
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Layer
from pipeline.model.tree import (
    Entry,
    EntryKind,
    Tree,
    kind_of,
)
from pipeline.oci.media_types import LAYERS
from pipeline.store import Store
from pipeline.trees.canonical_path import WHITEOUT
from pipeline.trees.scan import TREE_DEPTH_LIMIT, is_opaque, read_xattrs

_EMPTY = Tree.of({})


def pack_directory(
    upper: Path,
    *,
    name: str,
    lower: Tree,
    shift: int,
    build_time: int,
    store: Store,
    compression: Compression,
    contents: tuple[str, ...] = (),
) -> Layer:
    """Pack the changes that an overlay's upper directory makes to `lower` into a layer.

    `shift` is subtracted from owners' IDs. Entries equal to those in `lower` are left out, also when they were copied
    up or removed and made again. Entries get `build_time` as their time, except those with content and time of `lower`.
    Sockets are left out. Raises BuildError `device-node`, `too-deep`, `unsafe-path` (a whiteout's name).
    """
    changes = _Changes(upper, lower, shift, build_time)
    changes.walk("", hidden=False)
    return _write(changes.result(), name=name, store=store, compression=compression, contents=contents)


def pack_entries(
    entries: Iterable[tuple[Entry, bytes]],
    *,
    name: str,
    store: Store,
    compression: Compression,
    lower: Tree = _EMPTY,
    build_time: int = 0,
    contents: tuple[str, ...] = (),
) -> Layer:
    """Pack entries with their content (empty for what is no file) into a layer.

    Parents that are not among them are added as they are in `lower`, else 0755 of root, with `build_time`.
    """
    found: dict[str, tuple[Entry, bytes | Path]] = {entry.path: (entry, content) for entry, content in entries}
    for path in [*found]:
        for parent in _above(path):
            if parent not in found:
                known = lower.get(parent) or Entry(parent, EntryKind.DIRECTORY, mode=0o755)
                found[parent] = (replace(known, mtime=build_time), b"")
    return _write(
        [found[path] for path in sorted(found)],
        name=name,
        store=store,
        compression=compression,
        contents=contents,
    )


def layer_to_json(layer: Layer) -> dict[str, object]:
    """Convert a layer to a JSON value, for the store's results."""
    return {
        "name": layer.name,
        "diff_id": str(layer.diff_id),
        "media_type": layer.blob.media_type,
        "digest": str(layer.blob.digest),
        "size": layer.blob.size,
        "tar_size": layer.tar_size,
        "contents": list(layer.contents),
    }


def layer_from_json(value: Mapping[str, Any]) -> Layer:
    """Convert a JSON value from `layer_to_json` to a layer."""
    return Layer(
        name=value["name"],
        diff_id=DiffId.parse(value["diff_id"]),
        blob=Descriptor(value["media_type"], Digest.parse(value["digest"]), value["size"]),
        tar_size=value["tar_size"],
        contents=tuple(value["contents"]),
    )


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _write(
    entries: Sequence[tuple[Entry, bytes | Path]],
    *,
    name: str,
    store: Store,
    compression: Compression,
    contents: tuple[str, ...],
) -> Layer:
    with ThreadPoolExecutor(COMPRESSION_WORKERS, "relbuild-compress") as pool, store.writer() as blob:
        writer = ChunkWriter(blob, compression, pool)
        for entry, content in entries:
            if entry.kind is EntryKind.WHITEOUT:
                parent, _, last = entry.path.rpartition("/")
                hidden = f"{parent}/{WHITEOUT}{last}" if parent else f"{WHITEOUT}{last}"
                writer.entry(replace(entry, path=hidden, kind=EntryKind.FILE, mode=0, size=0))
            elif isinstance(content, Path):
                with content.open("rb") as file:
                    writer.entry(entry, chunks(file))
            else:
                writer.entry(entry, (content,))
        writer.end()
    return Layer(
        name=name,
        diff_id=writer.diff_id,
        blob=Descriptor(LAYERS[compression], blob.digest, blob.size),
        tar_size=writer.size,
        contents=contents,
    )


@dataclass(slots=True)
class _Changes:
    """The changes of an upper directory to the lower tree, collected path by path."""

    upper: Path
    lower: Tree
    shift: int
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
            for parent in _above(path):
                self.changed.setdefault(parent, (self.directories[parent], b""))
        return [self.changed[path] for path in sorted(self.changed)]

    def walk(self, folder: str, *, hidden: bool) -> None:
        """Collect the changes of a folder and of all below it.

        `hidden`: an opaque directory above hides the lower directory.
        """
        if folder.count("/") > TREE_DEPTH_LIMIT:
            raise BuildError(
                "too-deep", f"directories are nested more than {TREE_DEPTH_LIMIT} deep", place=folder[:200]
            )
        with os.scandir(self.upper / folder) as found:
            items = sorted(found, key=lambda item: item.name)
        if hidden:
            present = {item.name for item in items}
            for last in self.children.get(folder, ()):
                if last not in present:
                    self._remove(f"{folder}/{last}" if folder else last)
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            if item.name.startswith(WHITEOUT):
                raise BuildError(
                    "unsafe-path", f"/{path} is a whiteout name, which marks a deletion in a layer", place=f"/{path}"
                )
            self._item(path, item, hidden)

    def _item(self, path: str, item: os.DirEntry[str], hidden: bool) -> None:
        status = item.stat(follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            return
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if self.lower.get(path) is not None:
                self._remove(path)
            return
        kind = kind_of(status.st_mode)
        if kind is None or kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
            raise BuildError("device-node", f"/{path} is a device node; images cannot contain those")
        entry = Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid - self.shift,
            gid=status.st_gid - self.shift,
            mtime=self.build_time,
            size=status.st_size if kind is EntryKind.FILE else 0,
            link=os.readlink(item.path) if kind is EntryKind.SYMLINK else "",  # noqa: PTH115
            xattrs=read_xattrs(item.path),
        )
        below = self._below(path)
        if kind is EntryKind.DIRECTORY:
            self.directories[path] = entry
            if below is None or not _same_metadata(entry, below):
                self.changed[path] = (entry, b"")
            covers = hidden or is_opaque(item.path)
            self.walk(path, hidden=covers and below is not None and below.kind is EntryKind.DIRECTORY)
            return
        self._leaf(entry, below, item, status)

    def _leaf(self, entry: Entry, below: Entry | None, item: os.DirEntry[str], status: os.stat_result) -> None:
        same = False
        if below is not None and below.kind is entry.kind and below.link == entry.link:
            same_content = entry.kind is not EntryKind.FILE or (
                below.size == entry.size and digest_file(Path(item.path)) == below.content
            )
            same = same_content and _same_metadata(entry, below)
            if same_content and int(status.st_mtime) == below.mtime:
                entry = replace(entry, mtime=below.mtime)
        if entry.kind is EntryKind.FILE and status.st_nlink > 1:
            self.links.setdefault((status.st_dev, status.st_ino), []).append((entry, Path(item.path), same))
        elif not same:
            self.changed[entry.path] = (entry, Path(item.path) if entry.kind is EntryKind.FILE else b"")

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

    def _below(self, path: str) -> Entry | None:
        """Return the lower entry, a hard link as its file."""
        entry = self.lower.get(path)
        if entry is not None and entry.kind is EntryKind.HARDLINK:
            named = self.lower.get(entry.link)
            return replace(named, path=path) if named else None
        return entry

    def _remove(self, path: str) -> None:
        self.changed[path] = (Entry(path, EntryKind.WHITEOUT, mtime=self.build_time), b"")


def _same_metadata(a: Entry, b: Entry) -> bool:
    return (a.kind, a.mode, a.uid, a.gid, a.xattrs) == (b.kind, b.mode, b.uid, b.gid, b.xattrs)
