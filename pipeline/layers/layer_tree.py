"""A layer's tree, written while its segments are made, and the diff_id of its tar.

The diff_id is computed from the files that were written, read again in the order of the layer: what is mounted and
tested is what the diff_id says. That the blob says the same is for its reader to compare.
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
    """The tree of one layer. `size` is the bytes of its tar so far."""

    folder: Path
    writer: TreeWriter
    size: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _buffer: bytearray = field(default_factory=lambda: bytearray(_READ))

    @classmethod
    def begun(cls, folder: Path, name: str, directories: Sequence[Entry], open_folders: int) -> Self:
        """Begin a layer's tree in `folder`, with its directories, parents first; see `TreeWriter`."""
        root = folder / TREE_ROOT
        root.mkdir(parents=True)
        tree = cls(folder, TreeWriter.opened(root, name, open_folders))
        try:
            for entry in directories:
                tree.writer.place(entry)
                tree.count(entry)
        except BaseException:
            tree.writer.__exit__()
            raise
        return tree

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.__exit__()

    def count(self, entry: Entry) -> None:
        """Hash the next entry of the layer, its content read from the tree."""
        self._update(tar_header(entry))
        if entry.kind is not EntryKind.FILE or not entry.size:
            return
        before = self.size
        for piece in self.writer.content_of(entry, self._buffer):
            self._update(piece)
        if self.size - before != entry.size:
            raise VerificationError("layer-malformed", f"/{entry.path} has {self.size - before} bytes in its tree")
        self._update(padding(entry.size))

    def follow(self, entries: SimpleQueue[Entry | None]) -> None:
        """Count entries as another thread places them, until None."""
        while (entry := entries.get()) is not None:
            self.count(entry)

    def keep(self, store: Store, size: int) -> DiffId:
        """End the tree, whose tar has `size` bytes; put it into the store and return its diff_id."""
        self._update(TAR_END)
        if self.size != size:
            raise VerificationError("layer-malformed", f"a layer's tree has {self.size} bytes of tar, not {size}")
        diff_id = DiffId(self._hash.hexdigest())
        with store.locked(f"tree-{diff_id.hex}"):
            if store.kept_tree(diff_id) is None:
                with owners_required():
                    self.writer.finish()
                store.keep_tree(self.folder, diff_id, self.writer.content)
        return diff_id

    def _update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
