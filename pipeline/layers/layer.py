"""Build package layers by concatenating their packages' compressed segments.

A layer is all of its directories, then the segments of its packages in order of NEVRA, then the end marker. Its
identity is made of the segments' identities, so an unchanged layer costs a lookup in the store.

Each blob is read back: decompressed and compared with the diff_id of the tree, while the caller goes on. The layer is
remembered, and other processes that wait for it go on, only then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.compression import Compression, layer_versions
from pipeline.digest import DiffId, Digest, identity
from pipeline.layers.built_layer import BuiltLayer
from pipeline.layers.earlier_tree import remember_tree
from pipeline.layers.layer_formats import LAYER_FORMAT as FORMAT
from pipeline.layers.layer_packing import OnePassPacking
from pipeline.layers.own_blobs import record_own_blob
from pipeline.layers.planned_layer import MissingLayers, PackedLayer, PlannedLayer
from pipeline.layers.segments import segment_identity
from pipeline.layers.tar_format import tar_header
from pipeline.layers.tree_packing import TreePacking
from pipeline.layers.unpack_layer import LAYERS_IN_TWO
from pipeline.layers.unpacking_children import UnpackingChildren
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Layer
from pipeline.model.json_form import from_json, to_json
from pipeline.oci.media_types import LAYERS
from pipeline.progress import QUIET, Progress, Task
from pipeline.store import Store, UnnamedCopies
from pipeline.trees import ComposedLayer


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
    """Build one layer without its tree, or recall it. Raises as `build_layers`."""
    (made,) = build_layers([composed], store=store, compression=compression, unpack=False, progress=progress)
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
    """Build the layers to the end, or recall them; see `building_layers`."""
    with building_layers(
        composed, store=store, compression=compression, unpack=unpack, others=others, progress=progress
    ) as made:
        return made


@contextlib.contextmanager
def building_layers(
    composed: Sequence[ComposedLayer],
    *,
    store: Store,
    compression: Compression,
    unpack: bool,
    others: int = 0,
    progress: Progress = QUIET,
    making: Callable[[], None] = lambda: None,
    copies: UnnamedCopies | None = None,
    children: UnpackingChildren | None = None,
) -> Iterator[list[BuiltLayer]]:
    """Build the layers, or recall them; have the rest of their packing done beside the block.

    Their packages must be in `store` and verified. With `unpack`, the trees of those that are made are in the store
    when the block begins, and their blobs are packed; without, the blobs are there, and are read back. At the end of
    the block all blobs were read back. A RelbuildError of the block waits for that too, so that the layers are there
    for the next build; whatever else it raises ends the packing.

    The image will have `others` layers besides. `making` is called once if a layer has to be made, before it is. With
    `unpack`, `copies` gets copies of the blobs that are made, and `children` unpack some of the packages. Raises
    VerificationError `package-damaged`, `blob-missing`, `blob-damaged`, `diff-id-mismatch`, `layer-malformed`;
    EnvironmentLacking `root-needed`. Of a packing that failed that is raised, whatever the block raised on its account.
    """
    plans = [_plan(one, compression) for one in composed]
    with contextlib.ExitStack() as held:
        locks = {name: held.enter_context(contextlib.ExitStack()) for name in sorted({plan.name for plan in plans})}
        for name, lock in locks.items():  # In the same order in every process: nobody waits in a circle.
            lock.enter_context(store.locked(f"layer-{name.hex}"))
        found, missing = _recall_all(plans, compression, store, progress, making)
        for name in found:
            locks[name].close()

        def confirmed(plan: PlannedLayer, packed: PackedLayer) -> None:
            with locks[plan.name]:
                _remember(plan, packed, compression, store)

        given = MissingLayers(list(missing.values()), store, compression, progress, confirmed, copies, children)
        over_earlier = len(composed) + others <= LAYERS_IN_TWO
        made: list[BuiltLayer] = []
        after: list[Callable[[], None]] = []
        try:
            with TreePacking(given, over_earlier=over_earlier) if unpack else OnePassPacking(given) as packing:
                found |= dict(zip(missing, packing.built(), strict=True))
                made += [
                    replace(found[one.name], name=one.composed.name, contents=one.composed.contents, after=after)
                    for one in plans
                ]
                yield made
        except Exception:
            _call_packed(after, made)
            raise
        _call_packed(after, made)


def _call_packed(after: Sequence[Callable[[], None]], made: Sequence[BuiltLayer]) -> None:
    """Call what waits for the end of a packing, if that has found no damage."""
    if all(one.confirmed for one in made):
        for call in after:
            call()


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


def _recall_all(
    plans: Sequence[PlannedLayer],
    compression: Compression,
    store: Store,
    progress: Progress,
    making: Callable[[], None],
) -> tuple[dict[Digest, BuiltLayer], dict[Digest, tuple[PlannedLayer, Task]]]:
    """Return the layers that the store has, and those that have to be made, with their tasks.

    `making` is called if there are any of these.
    """
    found: dict[Digest, BuiltLayer] = {}
    missing: dict[Digest, tuple[PlannedLayer, Task]] = {}
    begun: list[Task] = []
    try:
        for plan in plans:
            if plan.name in found or plan.name in missing:
                continue
            begun.append(progress.start("layer", plan.composed.name, total=plan.content_size, unit="bytes"))
            known = _recall(plan.name, store)
            if known is None:
                missing[plan.name] = plan, begun[-1]
                continue
            running = begun.pop()
            running.advance(plan.content_size)
            running.note("reused")
            progress.finish(running)
            found[plan.name] = _recalled(plan, known, compression)
        if missing:
            making()
    except BaseException:
        for running in begun:
            progress.finish(running, failed=True)
        raise
    return found, missing


def _recalled(plan: PlannedLayer, known: _Known, compression: Compression) -> BuiltLayer:
    blob = Descriptor(LAYERS[compression], known.digest, known.size)
    layer = Layer(plan.composed.name, known.diff_id, blob, known.tar_size, plan.composed.contents)
    return BuiltLayer.packed(layer, reused=True)


def _recall(name: Digest, store: Store) -> _Known | None:
    known = store.recall_as(name, lambda value: from_json(_Known, value))
    return known if known is not None and store.sound(known.digest) else None


def _remember(plan: PlannedLayer, packed: PackedLayer, compression: Compression, store: Store) -> None:
    """Remember a layer that was read back, and what an update of it can share."""
    record_own_blob(packed.digest, store)
    store.remember(plan.name, to_json(_Known(packed.diff_id, packed.digest, packed.size, packed.tar_size)))
    if packed.orders:
        remember_tree(
            plan.composed, plan.segments, packed.orders, diff_id=packed.diff_id, compression=compression, store=store
        )
