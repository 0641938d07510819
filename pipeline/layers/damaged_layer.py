"""Find what is damaged in a store where a layer's blob is not its tree's tar."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.digest import DiffId
from pipeline.errors import VerificationError
from pipeline.layers.planned_layer import PlannedLayer
from pipeline.layers.segments import Segment
from pipeline.store import Store
from pipeline.store.unpacked_trees import OVER_EARLIER

_AGAIN = "run the command again; check the store with 'relbuild store fsck', and the disk"


def discard_damage(
    plan: PlannedLayer,
    segments: Iterable[Segment],
    store: Store,
    *,
    tree: DiffId | None = None,
    earlier: DiffId | None = None,
) -> None:
    """Have nothing count any more that a damaged layer was made of.

    That is the `earlier` tree if that is damaged, else its own `tree`, else the segments: a damaged one, or else the
    results of all. Raises VerificationError `diff-id-mismatch`, `blob-damaged` where it is known.
    """
    name = plan.composed.name
    if earlier is not None and not _reads_back(earlier, store):
        raise VerificationError(
            "diff-id-mismatch",
            f"layer '{name}' was made over the tree of an earlier one, in which the disk has changed files;"
            " that tree was removed",
            hint=_AGAIN,
        )
    if tree is not None and not _reads_back(tree, store):
        raise VerificationError(
            "diff-id-mismatch",
            f"layer '{name}' was made from its tree, in which the disk has changed files; that tree was removed",
            hint=_AGAIN,
        )
    for segment in segments:
        store.verify(segment.digest)  # Moves a damaged one aside and raises.
    for _, segment_name in plan.segments:
        store.quarantine(store.result(segment_name), "it is part of a layer that is damaged")


def _reads_back(tree: DiffId, store: Store) -> bool:
    with store.locked(f"tree-{tree.hex}"):
        return all(store.trees.reads_back(name) for name in (tree, f"{tree.hex}{OVER_EARLIER}"))
