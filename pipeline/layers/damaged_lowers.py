"""Have nothing be remembered that was made on a tree which turns out to be damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.errors import VerificationError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.model.image import Layer
from pipeline.store import Store


def lower_damages(layers: Sequence[Layer | BuiltLayer], store: Store) -> tuple[int, ...]:
    """Return how often each layer's tree was found to be damaged; see `UnpackedTrees.damages`."""
    return tuple(store.trees.damages(layer.diff_id) for layer in layers)


def remember_when_packed(
    layers: Sequence[Layer | BuiltLayer], damages: tuple[int, ...], store: Store, remember: Callable[[], None]
) -> None:
    """Call `remember` once all layers' blobs were read back, without an error.

    What a scriptlet read of a damaged tree is in the state layer. `damages` are those known before the trees were used.
    Raises VerificationError `diff-id-mismatch` if another process has found a new one since: now, or at the end of the
    packing.
    """

    def remember_unless_damaged() -> None:
        found = lower_damages(layers, store)
        for layer, before, after in zip(layers, damages, found, strict=True):
            if before != after:
                raise VerificationError(
                    "diff-id-mismatch",
                    f"the disk has changed files in the tree of layer '{layer.name}' while scriptlets ran on it;"
                    " that tree was removed",
                    hint="run the command again; check the disk",
                )
        remember()

    packing = [one for one in layers if isinstance(one, BuiltLayer) and not one.confirmed]
    if packing:
        packing[0].after.append(remember_unless_damaged)
    else:
        remember_unless_damaged()
