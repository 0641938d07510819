"""One layer that is made in two steps: its tree, and from that its blob.

The packages' entries are written into the tree, which is hashed behind in the order of the layer: its diff_id. Then the
segments that the store lacks are compressed from the files of the tree, and assembled to the blob; who reads that back
follows it while it is written. Whatever the blob decompresses to is compared with the tree's tar up to the end of each
segment, and the segment is remembered only then: its content stood on the disk in between.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import field
from functools import partial
from queue import SimpleQueue
from typing import Any, Self, TypeVar, cast

from pipeline.compression import Compression, Piece, layer_codec
from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers.chunk_writer import ChunkWriter, CompressionPool
from pipeline.layers.damaged_layer import discard_damage
from pipeline.layers.earlier_tree import SharedSegment, find_earlier_tree
from pipeline.layers.layer_packing import append_blob, copy_rest
from pipeline.layers.layer_progress import LayerProgress
from pipeline.layers.layer_tree import LayerTree, PlacedEntry
from pipeline.layers.package_placing import PackagePlacing, Placed
from pipeline.layers.planned_layer import PackedLayer, PlannedLayer, ReadBlob
from pipeline.layers.segment_contents import segment_contents
from pipeline.layers.segments import (
    Segment,
    compress_entries,
    recall_segment,
    remember_segment,
)
from pipeline.layers.tar_format import TAR_END
from pipeline.layers.tar_marks import MarkedTar, TarMark
from pipeline.layers.tree_writer import owners_required
from pipeline.layers.unpack_layer import HashingReader
from pipeline.layers.unpacking_children import UnpackingChildren
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task
from pipeline.store import BlobFollower, BlobWriter, Store, UnnamedCopies, UnnamedCopy
from pipeline.streams import decompressed

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A layer's tree in the store.

    `tar_size` is bytes of its tar, `marks` are the ends of its segments in that, and its own.
    """

    diff_id: DiffId
    tar_size: int
    marks: tuple[TarMark, ...]
    orders: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class TwoStepLayer:
    """A layer being made.

    Each of its methods but `begun` and `abandon` is called by a thread, some for each segment. The futures have what a
    thread has made for others; those of segments are in the order of the layer. `writers` has the writer of each
    segment that is compressed, None for one that is in the store.
    """

    plan: PlannedLayer
    store: Store
    compression: Compression
    progress: LayerProgress
    tree: LayerTree
    abandoned: threading.Event
    entries: list[SimpleQueue[PlacedEntry | None]]
    placed: list[Future[Placed]]
    writers: list[Future[BlobWriter | None]]
    segments: list[Future[Segment]]
    kept: Future[KeptTree] = field(default_factory=Future)
    draft: Future[BlobFollower] = field(default_factory=Future)
    read: Future[ReadBlob] = field(default_factory=Future)
    written: Future[None] = field(default_factory=Future)
    packed: Future[PackedLayer] = field(default_factory=Future)
    copies: UnnamedCopies | None = None
    copy: UnnamedCopy | None = None
    children: UnpackingChildren | None = None

    @classmethod
    @contextlib.contextmanager
    def begun(
        cls,
        plan: PlannedLayer,
        running: Task,
        *,
        store: Store,
        compression: Compression,
        progress: Progress,
        abandoned: threading.Event,
        open_folders: int,
        over_earlier: bool,
        copies: UnnamedCopies | None = None,
        children: UnpackingChildren | None = None,
    ) -> Iterator[Self]:
        """Begin a layer, in the store's temporary folder, for the time of the block.

        With `over_earlier` its tree may be written over an earlier one. `running` is ended in any case. What is read
        back goes into one of `copies`, if given; `children`, if any, unpack some of the packages.
        """
        made: Self | None = None
        told = LayerProgress(plan, progress, running)
        try:
            with store.temporary("layer") as folder:
                earlier = find_earlier_tree(plan.composed, plan.segments, compression, store) if over_earlier else None
                with owners_required():
                    tree = LayerTree.begun(
                        folder / "tree",
                        plan.composed.name,
                        plan.composed.directories,
                        open_folders,
                        earlier,
                        go_on=partial(_require_wanted, abandoned),
                    )
                count = len(plan.segments)
                with tree:
                    made = cls(
                        plan,
                        store,
                        compression,
                        told,
                        tree,
                        abandoned,
                        [SimpleQueue() for _ in range(count)],
                        [Future() for _ in range(count)],
                        [Future() for _ in range(count)],
                        [Future() for _ in range(count)],
                        copies=copies,
                        children=children,
                    )
                    yield made
        finally:
            told.fail()
            if made is not None and made.draft.done() and not made.draft.cancelled():
                made.draft.result().close()

    # --- the tree ----------------------------------------------------------------------------

    def place(self, at: int) -> Placed:
        """Write a package's entries into the tree, from its segment if the store has that."""
        part, name = self.plan.segments[at]
        shared = self._shared(at)
        if shared is not None:
            self.progress.placed(part)
            return Placed(shared.entries, shared.segment)
        segment = recall_segment(name, self.store)
        try:
            with self.tree.writer.beside() as tree:
                placing = PackagePlacing(
                    self.plan.composed, at, tree, self.entries[at], self.store, self.require_wanted
                )
                if segment is not None:
                    placing.unpack_segment(segment)
                else:
                    placing.unpack(self.tree.root, self.children)
        finally:
            self.entries[at].put(None)
        self.progress.placed(part)
        return Placed(tuple(placing.placed), segment)

    def _shared(self, at: int) -> SharedSegment | None:
        """Return what the earlier tree has of a segment; None if its entries are to be written."""
        return self.tree.earlier.shared.get(at) if self.tree.earlier is not None else None

    def keep(self) -> KeptTree:
        """Hash the tree behind those who write it, and put it into the store."""
        marks, orders = [], []
        self.tree.count_directories()
        for at, (part, _) in enumerate(self.plan.segments):
            shared = self._shared(at)
            if shared is None:
                self.tree.follow(self.entries[at])
                self.require_wanted()
            else:
                self._count_shared(shared)
            marks.append(self.tree.mark())
            places = {entry.path: place for place, (_, entry) in enumerate(part.entries)}
            orders.append(tuple(places[entry.path] for entry in self.placed[at].result().entries))
        marks.append(self.tree.end())
        diff_id = self.tree.keep(self.store)
        self.progress.kept(self.tree.size)
        return KeptTree(diff_id, self.tree.size, tuple(marks), tuple(orders) if self.tree.earlier is None else ())

    def _count_shared(self, shared: SharedSegment) -> None:
        """Hash what the earlier tree has of a segment."""
        try:
            for entry in shared.entries:
                self.tree.count(entry, shared=True)
        except FileNotFoundError as error:
            raise VerificationError(
                "layer-malformed",
                f"the tree of an earlier layer was removed while layer '{self.plan.composed.name}' was made over it",
                hint="run the command again; the layer is made without it",
            ) from error

    # --- the blob ----------------------------------------------------------------------------

    def compress(self, at: int, pool: CompressionPool) -> Segment:
        """Compress a segment from the tree, once it is there, unless the store had it; return it."""
        placed = self.placed[at].result()
        if placed.segment is not None:
            _give(self.writers[at], None)
            return placed.segment
        part, _ = self.plan.segments[at]
        with (
            self.tree.writer.beside() as tree,
            contextlib.closing(
                segment_contents(part, placed.entries, tree, self.store, self.require_wanted)
            ) as contents,
        ):
            return compress_entries(
                contents,
                store=self.store,
                compression=self.compression,
                pool=pool,
                begun=partial(_give, self.writers[at]),
            )

    def assemble(self, pool: CompressionPool) -> None:
        """Write the layer's blob, in the order of the layer, as the segments come.

        It is kept under the digest of what was read back. Raises VerificationError `digest-mismatch` if that is other
        bytes than were written.
        """
        with self.store.writer(hashed=False) as blob:
            follower = blob.follow()
            assert follower is not None
            try:
                _give(self.draft, follower)
            except BaseException:
                follower.close()
                raise
            start = ChunkWriter(blob, self.compression, pool, hashed=False)
            start.write(self.plan.directories)
            start.finish()
            for at in range(len(self.plan.segments)):
                self._append(at, blob)
                self.progress.assembled(self.plan.segments[at][0])
            blob.write(layer_codec(self.compression).compress(TAR_END))
            blob.finish()
            read = self.read.result()
            blob.identify(read.digest, size=read.size, checksum=read.checksum)

    def _append(self, at: int, blob: BlobWriter) -> None:
        """Copy a segment into the blob, also while it is still written."""
        writer = self.writers[at].result()
        follower = writer.follow() if writer is not None else None
        if follower is not None:
            with follower:
                copy_rest(follower.readinto, blob, self.require_wanted)
            return
        try:
            append_blob(self.segments[at].result().digest, blob, self.store, self.require_wanted)
        except VerificationError as error:
            if error.code != "blob-missing":
                raise
            nevra = str(self.plan.segments[at][0].nevra)
            raise VerificationError(
                "blob-missing",
                f"the segment of {nevra} is no longer in the store: {error.problems[0].message}",
                place=nevra,
                hint="run the command again; the segment is made again",
            ) from None

    # --- read back ---------------------------------------------------------------------------

    def read_back(self) -> PackedLayer:
        """Decompress the blob while it is written, and compare it with the tree.

        Raises VerificationError `diff-id-mismatch`, `digest-mismatch`, `layer-malformed`, `stream-damaged`.
        """
        kept, name = self.kept.result(), self.plan.composed.name
        with self.draft.result() as follower:
            if self.copies is not None:
                self.copy = self.copies.begin(self.plan.content_size)
            copied = follower.readinto if self.copy is None else self.copy.passing(follower.readinto)
            compressed = HashingReader(copied)
            pieces = decompressed(cast("Any", compressed), limit=kept.tar_size, name=name, own=True)
            with contextlib.closing(cast("Generator[Piece]", pieces)):
                self._compare(pieces, kept)
            compressed.drain()
        blob = ReadBlob(Digest(compressed.hash.hexdigest()), compressed.size, compressed.checksum)
        _give(self.read, blob)
        self.written.result()
        self.progress.read_back(blob.size)
        segments = tuple(one.result() for one in self.segments)
        earlier = self.tree.earlier.diff_id if self.tree.earlier is not None else None
        return PackedLayer(blob.digest, blob.size, kept.tar_size, kept.diff_id, segments, kept.orders, earlier)

    def _compare(self, pieces: Iterator[Piece], kept: KeptTree) -> None:
        """Compare a blob's tar with the tree's; remember each segment once its end is reached."""
        tar = MarkedTar(self.tree.key, kept.marks)
        for piece in pieces:
            self.require_wanted()
            for at, same in tar.update(piece):
                if not same:
                    raise self._mismatch(at)
                if at < len(self.segments) and self.placed[at].result().segment is None:
                    remember_segment(self.plan.segments[at][1], self.segments[at].result(), self.store)
            del piece
        if not tar.ended:
            raise self._mismatch(tar.reached)

    def _mismatch(self, at: int) -> VerificationError:
        """Return the error of a segment that differs, or of what follows on all of them."""
        where = f"in what it has of {self.plan.segments[at][0].nevra}" if at < len(self.segments) else "at its end"
        return VerificationError(
            "diff-id-mismatch",
            f"layer '{self.plan.composed.name}' decompresses to other bytes than its tree has, {where}",
            hint="run the command again; if it happens again, the machine's disk or memory may be faulty",
        )

    def discard_damage(self) -> None:
        """Have nothing count any more that the layer was made of."""
        made = [one for one in self.segments if one.done() and not one.cancelled() and one.exception() is None]
        discard_damage(
            self.plan,
            [one.result() for one in made],
            self.store,
            tree=self.kept.result().diff_id,
            earlier=self.tree.earlier.diff_id if self.tree.earlier is not None else None,
        )

    # --- errors ------------------------------------------------------------------------------

    def require_wanted(self) -> None:
        """Raise CancelledError if the layer was abandoned. Called before each piece."""
        _require_wanted(self.abandoned)

    def abandon(self) -> None:
        """Let everybody end who waits for what does not come."""
        for entries in self.entries:
            entries.put(None)
        waiting: list[Future[Any]] = [*self.placed, *self.writers, *self.segments, self.kept, self.draft]
        waiting += [self.read, self.written]
        for future in waiting:
            future.cancel()


def _require_wanted(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise CancelledError("the layer was abandoned")


def _give(future: Future[_T], value: _T) -> None:
    """Give a value to who waits for it. Raises CancelledError if nobody does any more."""
    if not future.set_running_or_notify_cancel():
        raise CancelledError("the layer was abandoned")
    future.set_result(value)
