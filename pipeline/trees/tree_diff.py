"""Comparison of two trees, path by path and field by field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, Tree


@dataclass(frozen=True, slots=True)
class TreeDifference:
    """A path that differs between two trees.

    It is in one tree only (`old` or `new` is None), or differs in the fields `what` of Entry.
    """

    path: str
    old: Entry | None
    new: Entry | None
    what: tuple[str, ...] = ()


_FIELDS = tuple(item.name for item in fields(Entry))


def diff_trees(old: Tree, new: Tree, *, ignore: Iterable[str] = ("owner",)) -> tuple[TreeDifference, ...]:
    """Compare two trees; return differences by path. `ignore` names fields that do not count."""
    compared = [name for name in _FIELDS if name not in set(ignore)]
    changes = []
    for path in sorted({*old.entries, *new.entries}):
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            changes.append(TreeDifference(path, before, after))
        elif what := tuple(name for name in compared if getattr(before, name) != getattr(after, name)):
            changes.append(TreeDifference(path, before, after, what))
    return tuple(changes)
