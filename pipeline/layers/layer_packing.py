"""Pack layers without their trees, all their packages together.

Several threads do it (`packing_order`). A package's payload is read once, and its pieces are compressed and hashed.
Behind the threads, in the order of each layer, the segments are copied into its blob. The bytes do not depend on the
order of work, nor on the number of threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import field
from functools import partial
from typing import Any, Self

from pipeline.compression import Compression, layer_codec
from pipeline.digest import CHUNK, Digest
from pipeline.errors import RelbuildError, VerificationError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.layers.chunk_writer import ChunkWriter, CompressionPool
from pipeline.layers.damaged_layer import discard_damage
from pipeline.layers.packing_order import PackingOrder, SegmentTask
from pipeline.layers.planned_layer import MissingLayers, PackedLayer, PlannedLayer, part_size
from pipeline.layers.segments import Segment, make_segment, recall_segment, segment_tar
from pipeline.layers.tar_digest import TAR_FILE_LIMIT, TAR_WAITING_LIMIT, TarDigest
from pipeline.layers.tar_format import TAR_END
from pipeline.layers.tar_marks import TarKey, TarMark
from pipeline.layers.unpack_layer import read_blob_back
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.oci.media_types import LAYERS
from pipeline.progress import Task
from pipeline.store import BlobWriter, Store
from pipeline.trees import Part


@dataclass(frozen=True, slots=True)
class _Written:
    """A layer whose blob is in the store, and not read back.

    `mark` is that of its whole tar, under `key`.
    """

    packed: PackedLayer
    key: TarKey
    mark: TarMark


class OnePassPacking:
    """The packing of layers that are missing, in a `with` block.

    At its beginning the blobs are in the store; they are read back beside the block. At its end that was done, also
    where the block raises a RelbuildError; if it raises anything else, it is not.
    """

    def __init__(self, missing: MissingLayers) -> None:
        self._missing = missing
        self._packed: list[_Written] = []
        self._blobs: list[Future[Descriptor]] = []
        self._reading = ThreadPoolExecutor(1, "relbuild-read-back")
        self._ending = threading.Event()

    def __enter__(self) -> Self:
        done = False
        try:
            self._packed = _pack(self._missing) if self._missing.plans else []
            done = True
        finally:
            for _, running in self._missing.plans:
                self._missing.progress.finish(running, failed=not done)
        self._blobs = [
            self._reading.submit(self._read_back, plan, one)
            for (plan, _), one in zip(self._missing.plans, self._packed, strict=True)
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        failed = next((one for one in self._blobs if one.done() and one.exception() is not None), None)
        try:
            if error is not None and failed is None:
                if isinstance(error, RelbuildError):
                    wait(self._blobs)
            elif error is None or isinstance(error, RelbuildError):
                wait(self._blobs)
                for blob in self._blobs:
                    blob.result()
        finally:
            self._ending.set()
            self._reading.shutdown(cancel_futures=True)
            for blob in self._blobs:
                if blob.cancelled():
                    blob.set_running_or_notify_cancel()  # Else `wait` would not end for it.

    def built(self) -> list[BuiltLayer]:
        """Return the layers in the order of their plans."""
        return [
            BuiltLayer(
                plan.composed.name,
                one.packed.diff_id,
                one.packed.tar_size,
                plan.composed.contents,
                reused=False,
                blob=blob,
                written=self._descriptor(one.packed),
            )
            for (plan, _), one, blob in zip(self._missing.plans, self._packed, self._blobs, strict=True)
        ]

    def _descriptor(self, packed: PackedLayer) -> Descriptor:
        return Descriptor(LAYERS[self._missing.compression], packed.digest, packed.size)

    def _require_wanted(self) -> None:
        if self._ending.is_set():
            raise CancelledError("the layers were abandoned")

    def _read_back(self, plan: PlannedLayer, written: _Written) -> Descriptor:
        """Decompress a blob, and compare it with the tar that was compressed.

        Of a blob that is another, nothing that it was made of counts any more.
        """
        packed, name = written.packed, plan.composed.name
        try:
            found = read_blob_back(
                packed.digest,
                size=packed.size,
                tar_size=packed.tar_size,
                name=name,
                store=self._missing.store,
                key=written.key,
                go_on=self._require_wanted,
            )
            if found != written.mark:
                raise VerificationError(
                    "diff-id-mismatch",
                    f"layer '{name}' decompresses to other bytes than were compressed",
                    hint="run the command again; if it happens again, the machine's memory may be faulty",
                )
        except VerificationError:
            discard_damage(plan, packed.segments, self._missing.store)
            raise
        self._missing.confirmed(plan, packed)
        return self._descriptor(packed)


def _pack(missing: MissingLayers) -> list[_Written]:
    plans, store, compression = missing.plans, missing.store, missing.compression
    # A package that is one stream is compressed by one thread, so the largest has to be begun early. One of many pieces
    # keeps all threads busy at any time, so that its bytes need not wait for their turn.
    largest_first = layer_codec(compression).stream is not None
    sizes = [plan.content_size for plan, _ in plans]
    with contextlib.ExitStack() as closing:
        packings = [
            closing.enter_context(
                _Packing.begun(
                    plan,
                    running,
                    store,
                    compression,
                    limit=TAR_WAITING_LIMIT // len(plans),
                    file_limit=TAR_FILE_LIMIT * size // max(1, sum(sizes)),
                )
            )
            for (plan, running), size in zip(plans, sizes, strict=True)
        ]
        pool = closing.enter_context(CompressionPool())
        workers = closing.enter_context(ThreadPoolExecutor(pool.workers, "relbuild-segment"))
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


@dataclass(slots=True)
class _Packing:
    """One layer being made. `tar` hashes the bytes that are compressed."""

    plan: PlannedLayer
    running: Task
    store: Store
    compression: Compression
    tar: TarDigest
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
        limit: int,
        file_limit: int,
    ) -> Iterator[Self]:
        """Begin a layer, for the time of the block; `limit` and `file_limit`: see `TarDigest`."""
        streams = layer_codec(compression).stream is not None
        with (
            store.temporary("layer") as folder,
            TarDigest(
                plan.directories,
                len(plan.segments),
                limit=limit,
                folder=folder if streams else None,
                file_limit=file_limit,
            ) as tar,
        ):
            yield cls(plan, running, store, compression, tar)

    @property
    def stalled(self) -> bool:
        """True while there is no room for the tar of a segment that was begun early."""
        return self.tar.stalled

    def tasks(self, number: int, pool: CompressionPool) -> list[SegmentTask]:
        """Return what has to be done for each segment. `number` is the layer's."""
        self.futures = [Future() for _ in self.plan.segments]
        return [
            SegmentTask((number, at), part_size(part), partial(self._make, at, pool), self.futures[at])
            for at, (part, _) in enumerate(self.plan.segments)
        ]

    def _make(self, at: int, pool: CompressionPool) -> Segment:
        """Make or recall a segment, and have its tar hashed."""
        part, name = self.plan.segments[at]
        segment = recall_segment(name, self.store)
        try:
            if segment is None:
                segment = make_segment(
                    part,
                    name=name,
                    store=self.store,
                    compression=self.compression,
                    pool=pool,
                    taker=lambda piece, used: self.tar.put(at, piece, used),
                )
            else:
                self._hash(part, segment, at)
        finally:
            self.tar.end(at)
        self.running.advance(part_size(part))
        return segment

    def _hash(self, part: Part, segment: Segment, at: int) -> None:
        try:
            for piece in segment_tar(segment, store=self.store, name=str(part.nevra)):
                self.tar.put(at, piece)
        except VerificationError:
            self.store.verify(segment.digest)  # Moves a damaged one aside and raises.
            raise

    def assemble(self, pool: CompressionPool) -> _Written:
        """Copy the segments into the layer's blob, and hash their tar, in the order of the layer."""
        segments = []
        with self.store.writer() as blob:
            start = ChunkWriter(blob, self.compression, pool, hashed=False)
            start.write(self.plan.directories)
            start.finish()
            for at in range(len(self.plan.segments)):
                self.tar.follow(at)
                segments.append(self.futures[at].result())
                append_blob(segments[-1].digest, blob, self.store)
            blob.write(layer_codec(self.compression).compress(TAR_END))
        size = len(self.plan.directories) + sum(segment.tar_size for segment in segments) + len(TAR_END)
        diff_id = self.tar.finish(TAR_END, size)
        self.running.note(f"{len(self.plan.composed.contents)} packages, {blob.size / 1e6:.1f} MB")
        packed = PackedLayer(blob.digest, blob.size, size, diff_id, tuple(segments))
        return _Written(packed, self.tar.key, self.tar.mark())

    def abandon(self) -> None:
        """Let `assemble` end where it waits for what does not come."""
        self.tar.abandon()
        for future in self.futures:
            future.cancel()


def append_blob(digest: Digest, blob: BlobWriter, store: Store, go_on: Callable[[], None] = lambda: None) -> None:
    """Copy a blob of the store to the end of one that is written; see `copy_rest`."""
    with store.reading(digest) as file:
        copy_rest(file.readinto, blob, go_on)  # type: ignore[attr-defined]


def copy_rest(readinto: Callable[[memoryview], int], blob: BlobWriter, go_on: Callable[[], None]) -> None:
    """Copy what is left of a file to the end of a blob that is written.

    `go_on` is called before each piece, and raises if no more is wanted.
    """
    view = memoryview(bytearray(CHUNK))
    while size := readinto(view):
        go_on()
        blob.write(view[:size])
