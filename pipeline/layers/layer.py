"""Build package layers by concatenating their packages' compressed segments.

A layer is all of its directories, then the segments of its packages in order of NEVRA, then the end marker. Its
identity is made of the segments' identities, so an unchanged layer costs a lookup in the store.

The finished blob is read back: decompressed and compared with the diff_id of the tree, while the caller goes on. The
layer is remembered, and other processes that wait for it go on, only then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from pipeline.compression import Compression, layer_versions
from pipeline.digest import DiffId, Digest, identity
from pipeline.errors import VerificationError
from pipeline.layers.earlier_tree import remember_tree
from pipeline.layers.layer_packing import PackedLayer, PlannedLayer, pack_planned
from pipeline.layers.segments import segment_identity
from pipeline.layers.tar_format import tar_header
from pipeline.layers.unpack_layer import LAYERS_IN_TWO, read_blob_back
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Layer
from pipeline.model.json_form import from_json, to_json
from pipeline.oci.media_types import LAYERS
from pipeline.progress import QUIET, Progress, Task
from pipeline.store import Store
from pipeline.trees import ComposedLayer

FORMAT = 1
"""To be raised when the same inputs give other bytes."""


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A built layer; `reused`: it was in the store. It counts when `confirm` has returned."""

    layer: Layer
    reused: bool
    reading: Future[DiffId] | None = None

    def confirm(self) -> None:
        """Wait until the blob was read back. Raises VerificationError if it is not the layer's."""
        if self.reading is not None:
            self.reading.result()


@dataclass(frozen=True, slots=True)
class _Known:
    """The digests and sizes of a layer that a store remembers."""

    diff_id: DiffId
    digest: Digest
    size: int
    tar_size: int


def build_layer(
    composed: ComposedLayer, *, store: Store, compression: Compression, progress: Progress = QUIET
) -> BuiltLayer:
    """Build one layer without its tree, or recall it, and confirm it. Raises as `build_layers`."""
    (made,) = build_layers([composed], store=store, compression=compression, unpack=False, progress=progress)
    made.confirm()
    return made


def build_layers(
    composed: Sequence[ComposedLayer],
    *,
    store: Store,
    compression: Compression,
    unpack: bool,
    others: int = 0,
    progress: Progress = QUIET,
) -> list[BuiltLayer]:
    """Build the layers, or recall them. Their packages must be in `store` and verified.

    With `unpack`, the trees of those that are made are put into the store too; the image will have `others` layers
    besides. The blobs are read back after the return: `BuiltLayer.confirm` waits for that. Raises VerificationError
    `package-damaged`, `blob-missing`, `blob-damaged`, `layer-malformed`; EnvironmentLacking `root-needed`.
    """
    plans = [_plan(one, compression) for one in composed]
    locks = {name: contextlib.ExitStack() for name in sorted({plan.name for plan in plans})}
    try:
        for name, lock in locks.items():  # In the same order in every process: nobody waits in a circle.
            lock.enter_context(store.locked(f"layer-{name.hex}"))
        found: dict[Digest, _Found] = {}
        missing: dict[Digest, tuple[PlannedLayer, Task]] = {}
        for plan in plans:
            if plan.name in found or plan.name in missing:
                continue
            running = progress.start("layer", plan.composed.name, total=plan.content_size, unit="bytes")
            known = _recall(plan.name, store)
            if known is None:
                missing[plan.name] = plan, running
            else:
                running.advance(plan.content_size)
                running.note("reused")
                progress.finish(running)
                found[plan.name] = known, True, None
                locks[plan.name].close()
        over_earlier = len(composed) + others <= LAYERS_IN_TWO
        found |= _make(missing, locks, store, compression, progress, unpack=unpack, over_earlier=over_earlier)
    except BaseException:
        for lock in locks.values():
            lock.close()
        raise
    return [_built(plan, found[plan.name], compression) for plan in plans]


def _plan(composed: ComposedLayer, compression: Compression) -> PlannedLayer:
    directories = b"".join(tar_header(entry) for entry in composed.directories)
    segments = tuple((part, segment_identity(part, compression)) for part in composed.parts)
    name = identity(
        "layer",
        FORMAT,
        directories=Digest.of(directories),
        segments=[str(segment) for _, segment in segments],
        codec=compression.value,
        versions=layer_versions(),
    )
    return PlannedLayer(name, composed, directories, segments)


_Found: TypeAlias = "tuple[_Known, bool, Future[DiffId] | None]"


def _built(plan: PlannedLayer, found: _Found, compression: Compression) -> BuiltLayer:
    known, reused, reading = found
    layer = Layer(
        name=plan.composed.name,
        diff_id=known.diff_id,
        blob=Descriptor(LAYERS[compression], known.digest, known.size),
        tar_size=known.tar_size,
        contents=plan.composed.contents,
    )
    return BuiltLayer(layer, reused, reading)


def _recall(name: Digest, store: Store) -> _Known | None:
    known = store.recall_as(name, lambda value: from_json(_Known, value))
    return known if known is not None and store.sound(known.digest) else None


def _make(
    missing: Mapping[Digest, tuple[PlannedLayer, Task]],
    locks: Mapping[Digest, contextlib.ExitStack],
    store: Store,
    compression: Compression,
    progress: Progress,
    *,
    unpack: bool,
    over_earlier: bool,
) -> dict[Digest, _Found]:
    """Make the layers that are missing, and begin to read their blobs back."""
    done = False
    try:
        packed = pack_planned(
            list(missing.values()), store=store, compression=compression, unpack=unpack, over_earlier=over_earlier
        )
        done = True
    finally:
        for _, running in missing.values():
            progress.finish(running, failed=not done)
    made: dict[Digest, _Found] = {}
    back = ThreadPoolExecutor(1, "relbuild-read-back")
    try:
        for (name, (plan, _)), one in zip(missing.items(), packed, strict=True):
            reading = back.submit(_read_back, plan, one, store, compression, locks[name])
            made[name] = _Known(one.diff_id, one.digest, one.size, one.tar_size), False, reading
    finally:
        back.shutdown(wait=False)
    return made


def _check_earlier(plan: PlannedLayer, packed: PackedLayer, store: Store) -> None:
    """Read the earlier tree that has some of a layer's files; if damaged, remove it and raise."""
    if packed.earlier is None:
        return
    with store.locked(f"tree-{packed.earlier.hex}"):
        if store.trees.reads_back(packed.earlier):
            return
    raise VerificationError(
        "diff-id-mismatch",
        f"layer '{plan.composed.name}' was made over the tree of an earlier one, in which the disk has changed files;"
        " that tree was removed",
        hint="run the command again; check the store with 'relbuild store fsck', and the disk",
    )


def _read_back(
    plan: PlannedLayer, packed: PackedLayer, store: Store, compression: Compression, lock: contextlib.ExitStack
) -> DiffId:
    """Decompress a blob, compare it with its tree, remember the layer, and release its lock.

    Of a blob that is not its tree's tar, nothing that it was made of counts any more: the earlier tree if that is
    damaged, and otherwise the segments.
    """
    with lock:
        try:
            diff_id = read_blob_back(
                packed.digest, size=packed.size, tar_size=packed.tar_size, name=plan.composed.name, store=store
            )
            if packed.diff_id != diff_id:
                raise VerificationError(
                    "diff-id-mismatch",
                    f"layer '{plan.composed.name}' decompresses to {diff_id}, but was made of {packed.diff_id}",
                    hint="run the command again; if it happens again, the machine's memory may be faulty",
                )
        except VerificationError:
            _check_earlier(plan, packed, store)
            for segment in packed.segments:
                store.verify(segment.digest)  # Moves a damaged one aside and raises.
            for _, name in plan.segments:
                store.quarantine(store.result(name), "it is part of a layer that is damaged")
            raise
        store.remember(plan.name, to_json(_Known(diff_id, packed.digest, packed.size, packed.tar_size)))
        if packed.orders:
            remember_tree(
                plan.composed, plan.segments, packed.orders, diff_id=diff_id, compression=compression, store=store
            )
    return diff_id
