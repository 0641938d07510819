"""A layer's tree, written while its segments are made, and the diff_id of its tar.

The diff_id is computed from the files that were written, read again in the order of the layer: what is mounted and
tested is what the diff_id says. That the blob says the same is for its reader to compare. Over an earlier tree only
what is not in it is written (`earlier_tree`); the files that are shared are read from there, as they will be when both
are mounted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from pipeline.compression import crc32
from pipeline.digest import DiffId
from pipeline.errors import VerificationError
from pipeline.layers.earlier_tree import EarlierTree
from pipeline.layers.tar_format import TAR_END, padding, tar_header
from pipeline.layers.tar_marks import TarKey, TarMark, TarMarker
from pipeline.layers.tree_writer import TreeWriter, owners_required
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT

_READ = 1 << 20
"""Bytes of a file that are read and hashed at once: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class PlacedEntry:
    """An entry that was written into a tree; `checksum` is the CRC-32 of its content."""

    entry: Entry
    checksum: int


class PassingChecksum:
    """The CRC-32 of pieces that pass.

    `go_on` is called before each, and raises if no more is wanted.
    """

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.value = 0
        self._go_on = go_on

    def passing(self, pieces: Iterable[memoryview | bytes]) -> Iterator[memoryview | bytes]:
        """Yield the pieces."""
        for piece in pieces:
            self._go_on()
            self.value = crc32(piece, self.value)
            yield piece


@dataclass(slots=True)
class LayerTree:
    """The tree of one layer. `key` is that of the marks in its tar.

    `directories` are counted first. `earlier` is the tree over which it is written, if any, and `shared` reads from
    that. `go_on` is called before each piece that is hashed, and raises if no more is wanted.
    """

    folder: Path
    writer: TreeWriter
    directories: Sequence[Entry]
    earlier: EarlierTree | None = None
    shared: TreeWriter | None = None
    key: TarKey = field(default_factory=TarKey)
    go_on: Callable[[], None] = lambda: None
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _buffer: bytearray = field(default_factory=lambda: bytearray(_READ))
    _marker: TarMarker = field(init=False)

    def __post_init__(self) -> None:
        self._marker = TarMarker(self.key)

    @property
    def root(self) -> Path:
        """The directory into which it is written."""
        return self.folder / TREE_ROOT

    @property
    def size(self) -> int:
        """The bytes of the tar so far."""
        return self._marker.size

    @classmethod
    def begun(
        cls,
        folder: Path,
        name: str,
        directories: Sequence[Entry],
        open_folders: int,
        earlier: EarlierTree | None = None,
        *,
        go_on: Callable[[], None] = lambda: None,
    ) -> Self:
        """Begin a layer's tree in `folder`, with its directories, parents first; see `TreeWriter`."""
        root = folder / TREE_ROOT
        root.mkdir(parents=True)
        tree = cls(folder, TreeWriter.opened(root, name, open_folders), directories, earlier, go_on=go_on)
        try:
            if earlier is not None:
                tree.shared = TreeWriter.opened(earlier.root, name, open_folders)
                tree.shared.directories = tree.writer.directories
            for entry in directories:
                tree.writer.place(entry)
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

    def count_directories(self) -> None:
        """Hash the layer's directories, before anything else."""
        for entry in self.directories:
            self.count(entry)

    def count(self, entry: Entry, *, checksum: int | None = None, shared: bool = False) -> None:
        """Hash the next entry of the layer, its content read from the tree, or from the earlier one.

        `checksum` is the CRC-32 of what was written. Raises VerificationError `layer-malformed` if the file has
        anything else.
        """
        self.go_on()
        self._update(tar_header(entry))
        if entry.kind is not EntryKind.FILE or not entry.size:
            return
        before, found = self.size, 0
        source = self.shared if shared and self.shared is not None else self.writer
        for piece in source.content_of(entry, self._buffer):
            self.go_on()
            self._update(piece)
            if checksum is not None:
                found = crc32(piece, found)
        if self.size - before != entry.size:
            raise VerificationError("layer-malformed", f"/{entry.path} has {self.size - before} bytes in its tree")
        if checksum is not None and found != checksum:
            raise VerificationError(
                "layer-malformed",
                f"/{entry.path} has other bytes in its tree than were written",
                hint="run the command again; if it happens again, the disk or the machine's memory may be faulty",
            )
        self._update(padding(entry.size))

    def follow(self, entries: SimpleQueue[PlacedEntry | None]) -> None:
        """Count entries as another thread places them, until None."""
        while (placed := entries.get()) is not None:
            self.count(placed.entry, checksum=placed.checksum)

    def mark(self) -> TarMark:
        """End a segment of the tar here."""
        return self._marker.mark()

    def end(self) -> TarMark:
        """Hash the end of the tar; return its mark."""
        self._update(TAR_END)
        return self._marker.mark()

    def keep(self, store: Store) -> DiffId:
        """Put the tree into the store, once `end` was called, and return its diff_id.

        What was opened of it can be read further.
        """
        diff_id = DiffId(self._hash.hexdigest())
        over = self.earlier.diff_id if self.earlier is not None else None
        with store.locked(f"tree-{diff_id.hex}"):
            if over != diff_id and store.trees.kept_stack(diff_id) is None:
                with owners_required():
                    self.writer.finish()
                store.trees.keep(self.folder, diff_id, self.writer.content, over)
        self.writer.content.clear()  # A digest of each file, while the layer is compressed.
        return diff_id

    def _update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._marker.update(data)
