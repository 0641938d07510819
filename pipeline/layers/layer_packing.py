"""Pack layers: all their packages together, by several threads (`packing_order`).

Behind them, in the order of each layer, the segments are copied into its blob and the tree's files are hashed.
A package's payload is read once: each piece of it is compressed into the package's segment and written into the layer's
tree. The bytes do not depend on the order of work, nor on the number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import field
from queue import SimpleQueue
from typing import Any, Self

from pipeline.compression import Compression, layer_codec
from pipeline.digest import CHUNK, DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers.chunk_writer import COMPRESSION_WORKERS, ChunkWriter, CompressionPool, PieceTaker
from pipeline.layers.earlier_tree import SharedSegment, find_earlier_tree
from pipeline.layers.layer_tree import LayerTree
from pipeline.layers.packing_order import PackingOrder, SegmentTask
from pipeline.layers.segments import (
    EntryWriter,
    Segment,
    make_segment,
    read_segment,
    recall_segment,
    segment_tar,
)
from pipeline.layers.tar_digest import TAR_FILE_LIMIT, TAR_WAITING_LIMIT, TarDigest
from pipeline.layers.tar_format import TAR_END
from pipeline.layers.tree_writer import TreeWriter, owners_required
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry
from pipeline.progress import Task
from pipeline.store import BlobWriter, Store
from pipeline.trees import ComposedLayer, Part

_OPEN_FOLDERS = 256
"""Directories that all layers and threads together keep open: a process may have 1024 files (RLIMIT_NOFILE), and 64
layers are begun together."""
_OPEN_LEAST = 4


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer before it is made.

    `name` is its identity, `directories` are the tar headers of its directories, `segments` its packages' parts with
    the identities of their segments.
    """

    name: Digest
    composed: ComposedLayer
    directories: bytes
    segments: tuple[tuple[Part, Digest], ...]

    @property
    def content_size(self) -> int:
        """Bytes of all files' content."""
        return sum(_content_size(part) for part, _ in self.segments)


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer's blob.

    `diff_id` is that of the tree that was written, or of the bytes that were compressed.
    """

    digest: Digest
    size: int
    tar_size: int
    diff_id: DiffId
    segments: tuple[Segment, ...]
    orders: tuple[tuple[int, ...], ...] = ()
    """Of a whole tree: the places in its part of each segment's entries, in the order of the segment."""
    earlier: DiffId | None = None
    """The earlier layer whose tree has the files that are shared."""


def pack_planned(
    plans: Sequence[tuple[PlannedLayer, Task]],
    *,
    store: Store,
    compression: Compression,
    unpack: bool,
    over_earlier: bool = True,
) -> list[PackedLayer]:
    """Make the layers' blobs, and with `unpack` their trees.

    With `over_earlier` these may be written over earlier ones. Raises as `build_layers`.
    """
    open_folders = max(_OPEN_LEAST, _OPEN_FOLDERS // (len(plans) + COMPRESSION_WORKERS)) if unpack else 0
    # A package that is one stream is compressed by one thread, so the largest has to be begun early. One of many pieces
    # keeps all threads busy at any time, so that its bytes need not wait for their turn where there is no tree.
    largest_first = unpack or layer_codec(compression).stream is not None
    sizes = [plan.content_size for plan, _ in plans]
    with contextlib.ExitStack() as closing:
        packings = [
            closing.enter_context(
                _Packing.begun(
                    plan,
                    running,
                    store,
                    compression,
                    open_folders=open_folders,
                    limit=TAR_WAITING_LIMIT // len(plans),
                    file_limit=TAR_FILE_LIMIT * size // max(1, sum(sizes)),
                    over_earlier=over_earlier,
                )
            )
            for (plan, running), size in zip(plans, sizes, strict=True)
        ]
        pool = closing.enter_context(CompressionPool())
        workers = closing.enter_context(ThreadPoolExecutor(COMPRESSION_WORKERS, "relbuild-segment"))
        behind = closing.enter_context(ThreadPoolExecutor(max(1, len(plans)), "relbuild-layer"))
        tasks = [task for at, packing in enumerate(packings) for task in packing.tasks(at, pool)]
        order = PackingOrder(
            tasks, sizes, largest_first=largest_first, stalled=lambda: any(packing.stalled for packing in packings)
        )
        try:
            for _ in tasks:
                workers.submit(order.run_one)
            packed = [behind.submit(packing.assemble, pool) for packing in packings]
            futures: list[Future[Any]] = [*(task.future for task in tasks), *packed]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in (one for one in futures if one in done):
                future.result()
            return [future.result() for future in packed]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            for packing in packings:
                packing.abandon()
            raise


def _content_size(part: Part) -> int:
    return sum(entry.size for _, entry in part.entries)


@dataclass(slots=True)
class _Packing:
    """One layer being made.

    With a `tree`, `entries` has the entries of each segment as they are placed, and None at its end. Without one, `tar`
    hashes the bytes that are compressed.
    """

    plan: PlannedLayer
    running: Task
    store: Store
    compression: Compression
    tree: LayerTree | None
    tar: TarDigest | None
    entries: list[SimpleQueue[Entry | None]] = field(default_factory=list)
    orders: list[tuple[int, ...]] = field(default_factory=list)
    futures: list[Future[Segment]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def begun(
        cls,
        plan: PlannedLayer,
        running: Task,
        store: Store,
        compression: Compression,
        *,
        open_folders: int,
        limit: int,
        file_limit: int,
        over_earlier: bool,
    ) -> Iterator[Self]:
        """Begin a layer, in the store's temporary folder, for the time of the block.

        Without `open_folders` it has no tree; then `limit` and `file_limit` are those of `TarDigest`. With
        `over_earlier` its tree may be written over an earlier one.
        """
        with store.temporary("layer") as folder:
            if not open_folders:
                streams = layer_codec(compression).stream is not None
                with TarDigest(
                    plan.directories,
                    len(plan.segments),
                    limit=limit,
                    folder=folder if streams else None,
                    file_limit=file_limit,
                ) as tar:
                    yield cls(plan, running, store, compression, None, tar)
                return
            earlier = None
            if over_earlier:
                earlier = find_earlier_tree(plan.composed, plan.segments, compression, store)
            with owners_required():
                tree = LayerTree.begun(
                    folder / "tree", plan.composed.name, plan.composed.directories, open_folders, earlier
                )
            with tree:
                yield cls(plan, running, store, compression, tree, None)

    @property
    def stalled(self) -> bool:
        """True while there is no room for the tar of a segment that was begun early."""
        return self.tar is not None and self.tar.stalled

    def tasks(self, number: int, pool: CompressionPool) -> list[SegmentTask]:
        """Return what has to be done for each segment. `number` is the layer's."""
        self.entries = [SimpleQueue() for _ in self.plan.segments]
        self.futures = [Future() for _ in self.plan.segments]
        return [
            SegmentTask((number, at), _content_size(part), lambda at=at: self._make(at, pool), self.futures[at])  # type: ignore[misc]
            for at, (part, _) in enumerate(self.plan.segments)
        ]

    def _make(self, at: int, pool: CompressionPool) -> Segment:
        """Make or recall a segment, and write its entries into the tree."""
        part, name = self.plan.segments[at]
        shared = self._shared(at)
        if shared is not None:
            self.running.advance(_content_size(part))
            return shared.segment
        segment = recall_segment(name, self.store)
        if self.tar is not None:
            tar = self.tar
            try:
                if segment is None:
                    found = self._segment(part, name, pool, taker=lambda piece, used: tar.put(at, piece, used))
                else:
                    self._hash(part, segment, at, tar)
                    found = segment
            finally:
                tar.end(at)
        else:
            try:
                found = self._unpack(part, name, segment, at, pool)
            finally:
                self.entries[at].put(None)
        self.running.advance(_content_size(part))
        return found

    def _shared(self, at: int) -> SharedSegment | None:
        """Return what the earlier tree has of a segment; None if its entries are to be written."""
        earlier = self.tree.earlier if self.tree is not None else None
        return earlier.shared.get(at) if earlier is not None else None

    def _unpack(self, part: Part, name: Digest, segment: Segment | None, at: int, pool: CompressionPool) -> Segment:
        assert self.tree is not None
        with self.tree.writer.beside() as writer:
            if segment is not None:
                self._read(part, segment, writer, at)
                return segment
            return self._segment(
                part,
                name,
                pool,
                place=lambda entry, content, digest: self._place(entry, content, digest, writer, at),
            )

    def _hash(self, part: Part, segment: Segment, at: int, tar: TarDigest) -> None:
        try:
            for piece in segment_tar(segment, store=self.store, name=str(part.nevra)):
                tar.put(at, piece)
        except VerificationError:
            self.store.verify(segment.digest)  # Moves a damaged one aside and raises.
            raise

    def _segment(
        self,
        part: Part,
        name: Digest,
        pool: CompressionPool,
        *,
        place: EntryWriter | None = None,
        taker: PieceTaker | None = None,
    ) -> Segment:
        return make_segment(
            part, name=name, store=self.store, compression=self.compression, pool=pool, place=place, taker=taker
        )

    def _read(self, part: Part, segment: Segment, tree: TreeWriter, at: int) -> None:
        try:
            read_segment(
                part,
                segment,
                store=self.store,
                place=lambda entry, content, digest: self._place(entry, content, digest, tree, at),
            )
        except VerificationError:
            self.store.verify(segment.digest)  # Moves a damaged one aside and raises.
            raise

    def _place(
        self, entry: Entry, content: Iterator[memoryview | bytes], digest: str, tree: TreeWriter, at: int
    ) -> None:
        with owners_required():
            tree.place(entry, content, digest)
        self.entries[at].put(entry)

    def assemble(self, pool: CompressionPool) -> PackedLayer:
        """Copy the segments into the layer's blob, and hash the tree, in the order of the layer."""
        segments = []
        with self.store.writer() as blob:
            start = ChunkWriter(blob, self.compression, pool, hashed=False)
            start.write(self.plan.directories)
            start.finish()
            for at in range(len(self.plan.segments)):
                self._count(at)
                segments.append(self.futures[at].result())
                _copy(segments[-1].digest, blob, self.store)
            blob.write(layer_codec(self.compression).compress(TAR_END))
        size = len(self.plan.directories) + sum(segment.tar_size for segment in segments) + len(TAR_END)
        diff_id = self._diff_id(size)
        self.running.note(f"{len(self.plan.composed.contents)} packages, {blob.size / 1e6:.1f} MB")
        earlier = self.tree.earlier.diff_id if self.tree is not None and self.tree.earlier is not None else None
        orders = tuple(self.orders) if self.tree is not None and earlier is None else ()
        return PackedLayer(blob.digest, blob.size, size, diff_id, tuple(segments), orders, earlier)

    def _count(self, at: int) -> None:
        """Hash the tar of a segment, as its entries are placed or as the earlier tree has them."""
        if self.tree is None:
            if self.tar is not None:
                self.tar.follow(at)
            return
        shared = self._shared(at)
        if shared is not None:
            for entry in shared.entries:
                self.tree.count(entry, shared=True)
            return
        places = {entry.path: place for place, (_, entry) in enumerate(self.plan.segments[at][0].entries)}
        self.orders.append(tuple(places[entry.path] for entry in self.tree.follow(self.entries[at])))

    def _diff_id(self, size: int) -> DiffId:
        if self.tree is not None:
            return self.tree.keep(self.store, size)
        assert self.tar is not None
        return self.tar.finish(TAR_END, size)

    def abandon(self) -> None:
        """Let `assemble` end where it waits for what does not come."""
        if self.tar is not None:
            self.tar.abandon()
        for entries, future in zip(self.entries, self.futures, strict=True):
            entries.put(None)
            future.cancel()


def _copy(digest: Digest, blob: BlobWriter, store: Store) -> None:
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with store.reading(digest) as file:
        while size := file.readinto(buffer):  # type: ignore[attr-defined]
            blob.write(view[:size])
