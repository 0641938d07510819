"""Layers over a tree: what is hidden, also where no layer names a directory of its own."""

from __future__ import annotations

import pytest

from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.trees import apply_layer_entries

FILE, FOLDER, LINK = EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK
WHITEOUT, OPAQUE = EntryKind.WHITEOUT, EntryKind.OPAQUE


def stacked(*layers: dict[str, EntryKind]) -> dict[str, EntryKind]:
    tree = Tree.of({})
    for layer in layers:
        tree = apply_layer_entries(tree, [Entry(path, kind) for path, kind in layer.items()])
    return {entry.path: entry.kind for entry in tree}


LOWER = {"a": FOLDER, "a/b": FOLDER, "a/b/f": FILE, "a/bc": FILE, "g": FILE}


@pytest.mark.parametrize("named", [True, False], ids=["directories named", "directories not named"])
@pytest.mark.parametrize(
    ("upper", "gone"),
    [
        ({"g": WHITEOUT}, {"g"}),
        ({"a/b": WHITEOUT}, {"a/b", "a/b/f"}),
        ({"a": WHITEOUT}, {"a", "a/b", "a/b/f", "a/bc"}),
        ({"a/b": OPAQUE}, {"a/b/f"}),
        ({"": OPAQUE}, set(LOWER)),
        ({"a/b": FILE}, {"a/b/f"}),
        ({"a/b": LINK}, {"a/b/f"}),
        ({"a/b/new": FILE}, set()),
        ({"nothing": WHITEOUT}, set()),
    ],
)
def test_what_a_layer_hides(upper: dict[str, EntryKind], gone: set[str], named: bool) -> None:
    lower = {path: kind for path, kind in LOWER.items() if named or kind is not FOLDER}
    new = {path: kind for path, kind in upper.items() if kind not in (WHITEOUT, OPAQUE)}
    assert stacked(lower, upper) == {path: kind for path, kind in lower.items() if path not in gone} | new


def test_what_a_layer_has_itself_is_not_hidden_by_its_whiteouts() -> None:
    upper = {"a": OPAQUE, "a/new": FILE, "g": FILE}
    assert stacked(LOWER, upper) == {"a": FOLDER, "a/new": FILE, "g": FILE}


@pytest.mark.parametrize("upper", [{"a/b/f": FILE}, {"a/b/f": WHITEOUT}, {"a/b/f": OPAQUE}])
@pytest.mark.parametrize("kind", [LINK, FILE])
def test_a_directory_that_only_paths_tell_replaces_what_is_none(upper: dict[str, EntryKind], kind: EntryKind) -> None:
    new = {"a/b/f": FILE} if FILE in upper.values() else {}
    assert stacked({"a": FOLDER, "a/b": kind}, upper) == {"a": FOLDER, "a/b": FOLDER} | new
