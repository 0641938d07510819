"""Have nothing be remembered that was made on a tree which turns out to be damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.model.image import Layer
from pipeline.store import Store

UNPACKINGS = 3
"""Times in a row that trees are unpacked: one that a power cut has damaged is whole at the second look. A disk that
changes each new one would take another copy of it each time."""


def lower_damages(layers: Sequence[Layer | BuiltLayer], store: Store) -> tuple[int, ...]:
    """Return how often each layer's tree was found to be damaged; see `UnpackedTrees.damages`."""
    return tuple(store.trees.damages(layer.diff_id) for layer in layers)


def damages_identity(damages: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return what damages add to the identity of what is made on trees, if there were any."""
    return {"damages": damages} if any(damages) else {}


def unpack_undamaged(
    unpack: Callable[[], Sequence[tuple[Path, ...]]],
    layers: Sequence[Layer | BuiltLayer],
    damages: tuple[int, ...],
    store: Store,
) -> tuple[Sequence[tuple[Path, ...]], tuple[int, ...]]:
    """Call `unpack` until it finds no new damage; return its folders, and the damages known.

    `damages` are those known before. Raises VerificationError `diff-id-mismatch` if it finds one `UNPACKINGS` times.
    """
    found = damages
    for _ in range(UNPACKINGS):
        before, folders = found, unpack()
        found = lower_damages(layers, store)
        if found == before:
            return folders, found
    layer = next(layer for layer, one, other in zip(layers, before, found, strict=True) if one != other)
    raise VerificationError(
        "diff-id-mismatch",
        f"the tree of layer '{layer.name}' was found to be damaged: '{store.trees.path(layer.diff_id)}';"
        f" layers were unpacked {UNPACKINGS} times, and damage was found each time",
        hint=f"the disk of the store '{store.root}' is probably faulty: check the kernel log (`dmesg`), and the store"
        " with 'relbuild store fsck'; or use one on another disk (--store)",
    )


def require_undamaged(
    layers: Sequence[Layer | BuiltLayer], damages: tuple[int, ...], store: Store, meanwhile: str
) -> None:
    """Raise VerificationError `diff-id-mismatch` if a new damage of the layers' trees was found.

    `damages` are those known before the trees were used, and `meanwhile` is what was done with them, as a clause.
    """
    for layer, before, after in zip(layers, damages, lower_damages(layers, store), strict=True):
        if before != after:
            raise VerificationError(
                "diff-id-mismatch",
                f"the disk has changed files in the tree of layer '{layer.name}' while {meanwhile};"
                " that tree was removed",
                hint="run the command again; check the disk",
            )


def remember_when_packed(
    layers: Sequence[Layer | BuiltLayer], damages: tuple[int, ...], store: Store, remember: Callable[[], None]
) -> None:
    """Call `remember` once all layers' blobs were read back, without an error.

    What a scriptlet read of a damaged tree is in the state layer. `damages` are those known before the trees were used.
    Raises VerificationError `diff-id-mismatch` if another process has found a new one since: now, or at the end of the
    packing.
    """

    def remember_unless_damaged() -> None:
        require_undamaged(layers, damages, store, "scriptlets ran on it")
        remember()

    packing = [one for one in layers if isinstance(one, BuiltLayer) and not one.confirmed]
    if packing:
        packing[0].after.append(remember_unless_damaged)
    else:
        remember_unless_damaged()
