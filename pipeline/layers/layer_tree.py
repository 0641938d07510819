"""A layer's tree, written while its segments are made, and the diff_id of its tar.

The diff_id is computed from the files that were written, read again in the order of the layer: what is mounted and
tested is what the diff_id says. That the blob says the same is for its reader to compare. Over an earlier tree only
what is not in it is written (`earlier_tree`); the files that are shared are read from there, as they will be when both
are mounted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from pipeline.digest import DiffId
from pipeline.errors import VerificationError
from pipeline.layers.earlier_tree import EarlierTree
from pipeline.layers.tar_format import TAR_END, padding, tar_header
from pipeline.layers.tree_writer import TreeWriter, owners_required
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT

_READ = 1 << 20
"""Bytes of a file that are read and hashed at once: they stay in the processor's cache."""


@dataclass(slots=True)
class LayerTree:
    """The tree of one layer. `size` is the bytes of its tar so far.

    `earlier` is the tree over which it is written, if any, and `shared` reads from that.
    """

    folder: Path
    writer: TreeWriter
    earlier: EarlierTree | None = None
    shared: TreeWriter | None = None
    size: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _buffer: bytearray = field(default_factory=lambda: bytearray(_READ))

    @classmethod
    def begun(
        cls,
        folder: Path,
        name: str,
        directories: Sequence[Entry],
        open_folders: int,
        earlier: EarlierTree | None = None,
    ) -> Self:
        """Begin a layer's tree in `folder`, with its directories, parents first; see `TreeWriter`."""
        root = folder / TREE_ROOT
        root.mkdir(parents=True)
        tree = cls(folder, TreeWriter.opened(root, name, open_folders), earlier)
        try:
            if earlier is not None:
                tree.shared = TreeWriter.opened(earlier.root, name, open_folders)
                tree.shared.directories = tree.writer.directories
            for entry in directories:
                tree.writer.place(entry)
                tree.count(entry)
        except BaseException:
            tree.__exit__()
            raise
        return tree

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.__exit__()
        if self.shared is not None:
            self.shared.__exit__()

    def count(self, entry: Entry, *, shared: bool = False) -> None:
        """Hash the next entry of the layer, its content read from the tree, or from the earlier one."""
        self._update(tar_header(entry))
        if entry.kind is not EntryKind.FILE or not entry.size:
            return
        before = self.size
        source = self.shared if shared and self.shared is not None else self.writer
        for piece in source.content_of(entry, self._buffer):
            self._update(piece)
        if self.size - before != entry.size:
            raise VerificationError("layer-malformed", f"/{entry.path} has {self.size - before} bytes in its tree")
        self._update(padding(entry.size))

    def follow(self, entries: SimpleQueue[Entry | None]) -> list[Entry]:
        """Count entries as another thread places them, until None; return them."""
        counted = []
        while (entry := entries.get()) is not None:
            self.count(entry)
            counted.append(entry)
        return counted

    def keep(self, store: Store, size: int) -> DiffId:
        """End the tree, whose tar has `size` bytes; put it into the store and return its diff_id."""
        self._update(TAR_END)
        if self.size != size:
            raise VerificationError("layer-malformed", f"a layer's tree has {self.size} bytes of tar, not {size}")
        diff_id = DiffId(self._hash.hexdigest())
        over = self.earlier.diff_id if self.earlier is not None else None
        with store.locked(f"tree-{diff_id.hex}"):
            if over != diff_id and store.trees.kept_stack(diff_id) is None:
                with owners_required():
                    self.writer.finish()
                store.trees.keep(self.folder, diff_id, self.writer.content, over)
        return diff_id

    def _update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
