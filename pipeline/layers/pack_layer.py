"""Pack a layer from an overlay's upper directory, or from entries in memory.

Overlayfs marks a deleted path by a character device 0:0 and an opaque directory by an attribute; a layer marks both by
`.wh.` names (image-spec, layer.md). An opaque directory is written as one whiteout for each name that it hides, as the
specification prefers, so the layer depends on what was removed and not on how.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, chunks
from pipeline.errors import BuildError
from pipeline.layers.chunk_writer import ChunkWriter, CompressionPool
from pipeline.layers.layer_changes import LayerChanges, parents_of
from pipeline.layers.own_blobs import record_own_blob
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
    changes = LayerChanges(lower, build_time)
    _UpperChanges(upper, shift, changes).walk("", hidden=False)
    return write_layer_entries(changes.result(), name=name, store=store, compression=compression, contents=contents)


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
        for parent in parents_of(path):
            if parent not in found:
                known = lower.get(parent) or Entry(parent, EntryKind.DIRECTORY, mode=0o755)
                found[parent] = (replace(known, mtime=build_time), b"")
    return write_layer_entries(
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


def write_layer_entries(
    entries: Sequence[tuple[Entry, bytes | Path]],
    *,
    name: str,
    store: Store,
    compression: Compression,
    contents: tuple[str, ...] = (),
) -> Layer:
    """Write entries, sorted by path, with their contents into a layer's blob."""
    with CompressionPool() as pool, store.writer() as blob:
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
    record_own_blob(blob.digest, store)
    return Layer(
        name=name,
        diff_id=writer.diff_id,
        blob=Descriptor(LAYERS[compression], blob.digest, blob.size),
        tar_size=writer.size,
        contents=contents,
    )


@dataclass(slots=True)
class _UpperChanges:
    """The walk over an overlay's upper directory; `shift` is subtracted from owners' IDs."""

    upper: Path
    shift: int
    changes: LayerChanges

    def walk(self, folder: str, *, hidden: bool) -> None:
        """Collect the changes of a folder and of all below it.

        `hidden`: an opaque directory above hides the lower directory.
        """
        require_depth(folder)
        with os.scandir(self.upper / folder) as found:
            items = sorted(found, key=lambda item: item.name)
        if hidden:
            present = {item.name for item in items}
            for last in self.changes.children.get(folder, ()):
                if last not in present:
                    self.changes.remove(f"{folder}/{last}" if folder else last)
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            require_no_whiteout(path, item.name)
            self._item(path, item, hidden)

    def _item(self, path: str, item: os.DirEntry[str], hidden: bool) -> None:
        status = item.stat(follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            return
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if self.changes.lower.get(path) is not None:
                self.changes.remove(path)
            return
        kind = image_kind(path, status)
        entry = Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid - self.shift,
            gid=status.st_gid - self.shift,
            mtime=self.changes.build_time,
            size=status.st_size if kind is EntryKind.FILE else 0,
            link=os.readlink(item.path) if kind is EntryKind.SYMLINK else "",  # noqa: PTH115
            xattrs=read_xattrs(item.path),
        )
        if kind is EntryKind.DIRECTORY:
            below = self.changes.below(path)
            self.changes.add_directory(entry)
            covers = hidden or is_opaque(item.path)
            self.walk(path, hidden=covers and below is not None and below.kind is EntryKind.DIRECTORY)
            return
        self.changes.add_leaf(
            entry,
            Path(item.path),
            inode=(status.st_dev, status.st_ino),
            names=status.st_nlink,
            mtime=int(status.st_mtime),
        )


def require_depth(folder: str) -> None:
    """Raise BuildError `too-deep` for a folder that is nested too deep."""
    if folder.count("/") > TREE_DEPTH_LIMIT:
        raise BuildError("too-deep", f"directories are nested more than {TREE_DEPTH_LIMIT} deep", place=folder[:200])


def require_no_whiteout(path: str, name: str) -> None:
    """Raise BuildError `unsafe-path` for a name that marks a deletion in a layer."""
    if name.startswith(WHITEOUT):
        raise BuildError(
            "unsafe-path", f"/{path} is a whiteout name, which marks a deletion in a layer", place=f"/{path}"
        )


def image_kind(path: str, status: os.stat_result) -> EntryKind:
    """Return the kind of a file (no socket). Raises BuildError `device-node`."""
    kind = kind_of(status.st_mode)
    if kind is None or kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        raise BuildError("device-node", f"/{path} is a device node; images cannot contain those")
    return kind
