"""Make several layers in two steps: all their trees, then their blobs.

The second is done beside what the caller does with the trees. The threads write trees, of any layer, before they
compress anything. What they take next is in `packing_order`. Two threads assemble the blobs, the largest layers first,
and two read them back, so that however many layers there are, few pieces are in memory, and what is left to do after
the last compression is little. The bytes depend neither on the order of work nor on the number of threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Any, Self

from pipeline.compression import layer_codec
from pipeline.errors import RelbuildError, VerificationError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.layers.chunk_writer import CompressionPool
from pipeline.layers.packing_order import PackingOrder, SegmentTask
from pipeline.layers.planned_layer import MissingLayers, PackedLayer, part_size
from pipeline.layers.two_step_layer import TwoStepLayer
from pipeline.model.image import Descriptor
from pipeline.oci.media_types import LAYERS

_OPEN_FOLDERS = 256
"""Directories that all layers and threads together keep open: a process may have 1024 files (RLIMIT_NOFILE), and 64
layers are begun together."""
_OPEN_LEAST = 4
_BLOBS = 2
"""Blobs that are assembled and read back at once: while the largest is compressed, the next is, piece by piece, too."""
_LONG = 1.0
"""Seconds that somebody waits without being told of an error."""


class TreePacking:
    """The packing of layers that are missing, in a `with` block.

    At its beginning the trees are in the store, and the blobs follow. At its end all blobs were read back; where the
    block raises a RelbuildError too, so that the next build has them, and where it raises anything else they are
    abandoned. What goes wrong in packing is raised at the end, unless the block has raised an error before that.
    """

    def __init__(self, missing: MissingLayers, *, over_earlier: bool) -> None:
        self._missing = missing
        self._over_earlier = over_earlier
        self._layers: list[TwoStepLayer] = []
        self._blobs: list[Future[Descriptor]] = [Future() for _ in missing.plans]
        self._guard = threading.Lock()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._closing = contextlib.ExitStack()
        self._begun = 0

    def __enter__(self) -> Self:
        if not self._missing.plans:
            self._end_children()
            return self
        try:
            self._begin()
            self._require([layer.kept for layer in self._layers])
            self._end_children()
        except BaseException:
            self._abandon()
            self._closing.close()
            for _, running in self._missing.plans[self._begun :]:
                self._missing.progress.finish(running, failed=True)
            raise
        return self

    def _end_children(self) -> None:
        """End those that unpack: the memory that they share with this process is its own again."""
        if self._missing.children is not None:
            self._missing.children.end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = self._failure  # A later one did not cause the block's error.
        try:
            if error is None:
                self._require(self._blobs)
            elif isinstance(error, RelbuildError) and failure is None:
                self._wait_after(error)
        finally:
            self._abandon()
            self._closing.close()
        if failure is not None and isinstance(error, Exception) and error is not failure:
            raise failure

    def _wait_after(self, error: RelbuildError) -> None:
        """Wait for the packing after an error of the block, which is told first if that takes long."""
        if wait(self._blobs, timeout=_LONG, return_when=FIRST_EXCEPTION).not_done and self._failure is None:
            problem = error.problems[0]
            place = f"{problem.place}: " if problem.place else ""
            what = problem.message.partition("\n")[0]
            self._missing.progress.warn(
                f"{place}{what}; the build fails when the layers are packed, which the next build then finds"
            )
            wait(self._blobs, return_when=FIRST_EXCEPTION)

    def built(self) -> list[BuiltLayer]:
        """Return the layers in the order of their plans."""
        trees = [layer.kept.result() for layer in self._layers]
        return [
            BuiltLayer(plan.composed.name, tree.diff_id, tree.tar_size, plan.composed.contents, reused=False, blob=blob)
            for (plan, _), tree, blob in zip(self._missing.plans, trees, self._blobs, strict=True)
        ]

    def _begin(self) -> None:
        pool = CompressionPool()
        open_folders = max(_OPEN_LEAST, _OPEN_FOLDERS // (len(self._missing.plans) + pool.workers))
        for plan, running in self._missing.plans:
            self._begun += 1  # It ends its task in any case.
            begun = TwoStepLayer.begun(
                plan,
                running,
                store=self._missing.store,
                compression=self._missing.compression,
                progress=self._missing.progress,
                abandoned=self._ending,
                open_folders=open_folders,
                over_earlier=self._over_earlier,
                copies=self._missing.copies,
                children=self._missing.children,
            )
            self._layers.append(self._closing.enter_context(begun))
        self._closing.enter_context(pool)  # It ends before the layers.
        self._submit_segments(pool)
        keeping = self._threads(max(1, len(self._layers)), "relbuild-layer")
        assembling, reading = self._threads(_BLOBS, "relbuild-blob"), self._threads(_BLOBS, "relbuild-read-back")
        sizes = [plan.content_size for plan, _ in self._missing.plans]
        for at in sorted(range(len(sizes)), key=lambda at: (-sizes[at], at)):
            layer = self._layers[at]
            keeping.submit(self._fulfil, layer.kept, layer.keep)
            assembling.submit(self._fulfil, layer.written, partial(layer.assemble, pool))
            reading.submit(self._read_back, layer, self._blobs[at])

    def _threads(self, count: int, name: str) -> ThreadPoolExecutor:
        return self._closing.enter_context(ThreadPoolExecutor(count, name))

    def _submit_segments(self, pool: CompressionPool) -> None:
        """Have the segments unpacked, and then compressed, by threads that take one after the other."""
        sizes = [plan.content_size for plan, _ in self._missing.plans]
        trees, blobs = [], []
        for number, layer in enumerate(self._layers):
            for at, (part, _) in enumerate(layer.plan.segments):
                size, place = part_size(part), (number, at)
                placed, compress = layer.placed[at], partial(layer.compress, at, pool)
                trees.append(SegmentTask(place, size, partial(layer.place, at), placed))
                blobs.append(SegmentTask(place, size, compress, layer.segments[at], placed.done))
        # A package that is one stream is compressed by one thread, so the largest has to be begun early. One of many
        # pieces keeps all threads busy at any time, so that its bytes need not wait for their turn.
        largest_first = layer_codec(self._missing.compression).stream is not None
        first = PackingOrder(trees, sizes, largest_first=True, fulfil=self._fulfil)
        then = PackingOrder(blobs, sizes, largest_first=largest_first, fulfil=self._fulfil)
        workers = self._threads(pool.workers, "relbuild-segment")
        for _ in range(len(trees) + len(blobs)):
            workers.submit(lambda: first.run_one() or then.run_one())

    def _read_back(self, layer: TwoStepLayer, blob: Future[Descriptor]) -> None:
        self._fulfil(layer.packed, lambda: self._confirm(layer))
        if layer.packed.cancelled() or layer.packed.exception() is not None:
            return
        packed = layer.packed.result()
        with self._guard:
            if not blob.done():
                blob.set_result(Descriptor(LAYERS[self._missing.compression], packed.digest, packed.size))

    def _confirm(self, layer: TwoStepLayer) -> PackedLayer:
        try:
            packed = layer.read_back()
        except VerificationError:
            layer.discard_damage()
            raise
        self._missing.confirmed(layer.plan, packed)
        if self._missing.copies is not None and layer.copy is not None:
            self._missing.copies.confirm(packed.digest, layer.copy)
        return packed

    # --- errors ------------------------------------------------------------------------------

    def _fulfil(self, future: Future[Any], make: Callable[[], Any]) -> None:
        """Give a future what `make` returns or raises; the first error ends everything."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(make())
        except CancelledError:
            self._ending.wait()  # It is told of what went wrong elsewhere, maybe before that was noted.
            future.set_exception(self._failure or CancelledError())
        except BaseException as error:
            self._abandon(error)
            future.set_exception(error)

    def _abandon(self, failure: BaseException | None = None) -> None:
        """End everything, on account of a failure or because nobody wants it. The first call counts."""
        with self._guard:
            if self._ending.is_set():
                return
            self._failure = failure
            for blob in self._blobs:
                if failure is not None and not blob.done():
                    blob.set_exception(failure)
                if blob.cancel():
                    blob.set_running_or_notify_cancel()  # Else `wait` would not end for it.
            self._ending.set()
        if self._missing.children is not None:
            self._missing.children.kill()
        for layer in self._layers:
            layer.abandon()

    def _require(self, futures: Sequence[Future[Any]]) -> None:
        """Wait for futures. Raises the failure that ended everything, if any did."""
        wait(futures, return_when=FIRST_EXCEPTION)
        if self._failure is not None:
            raise self._failure
        for future in futures:
            future.result()
