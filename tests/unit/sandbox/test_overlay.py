"""Layers whose trees are the same ones in one overlay, as layers that add nothing: overlayfs takes each once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.sandbox import kernel, overlay
from pipeline.sandbox.overlay import each_once, mount_overlay
from pipeline.trees import apply_layer_entries

_KINDS = (EntryKind.FILE, EntryKind.SYMLINK, EntryKind.DIRECTORY, EntryKind.WHITEOUT, EntryKind.OPAQUE)
_PATHS = ("a", "b", "a/a", "a/b", "b/a", "a/a/a")


class _Mounts:
    """Stands in for a mount namespace: says what would be mounted where."""

    def __init__(self, folder: Path) -> None:
        self.place, self.bound = folder, list[tuple[Path, str]]()

    def call(self, function: Callable[[], int]) -> int:
        return function()

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> Path:
        (self.place / name).mkdir(parents=True)
        return self.place / name

    def bind(self, source: Path, name: str, *, read_only: bool, userns: int | None = None) -> Path:
        self.bound.append((source, name))
        return self.place / name


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[str]]:
    """Mount trees of these names, the lowest first; returns those that overlayfs is given, in its order."""
    monkeypatch.chdir(tmp_path)  # `mount_overlay` changes it.

    def mount(names: list[str]) -> list[str]:
        mntns = _Mounts(tmp_path / "mounts")
        given = list[str]()
        monkeypatch.setattr(overlay, "MOUNT_BASE", mntns.place)
        monkeypatch.setattr(kernel, "mount", lambda *words: given.append(words[-1]))
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "written").mkdir()
        lowers = [tmp_path / name for name in names]
        made = mount_overlay(mntns, lowers, folder=tmp_path / "written", userns=-1, base=os.getuid())  # type: ignore[arg-type]
        os.close(made.handle)
        (options,) = given
        bound = {place: source.name for source, place in mntns.bound}
        folders = options.partition(",")[0].removeprefix("lowerdir=").split(":")
        return [bound.get(folder, folder) for folder in folders]

    return mount


def test_a_tree_of_several_layers_is_mounted_once_where_it_is_highest(
    mounted: Callable[[list[str]], list[str]],
) -> None:
    assert mounted(["base", "empty", "empty", "tool", "empty"]) == ["empty", "tool", "base", "skeleton"]


def test_only_trees_that_are_mounted_count_for_the_limit(mounted: Callable[[list[str]], list[str]]) -> None:
    assert len(mounted(["base", *["empty"] * 100])) == 3


def test_more_trees_than_mount_takes_are_refused(mounted: Callable[[list[str]], list[str]]) -> None:
    with pytest.raises(UsageError) as caught:
        mounted([*(f"tree{number}" for number in range(65)), "tree0"])
    assert caught.value.code == "too-many-layers" and "65 layers" in str(caught.value)


@st.composite
def _layer(draw: st.DrawFn) -> tuple[Entry, ...]:
    """A layer as it is unpacked: all directories above its entries are entries too."""
    entries = dict[str, Entry]()
    for path in draw(st.lists(st.sampled_from(_PATHS), unique=True, max_size=4)):
        parents = [path[:end] for end, letter in enumerate(path) if letter == "/"]
        kinds = [entries[parent].kind for parent in parents if parent in entries]
        if path in entries or any(kind not in (EntryKind.DIRECTORY, EntryKind.OPAQUE) for kind in kinds):
            continue
        for parent in parents:
            entries.setdefault(parent, Entry(parent, EntryKind.DIRECTORY, mode=0o755))
        entries[path] = Entry(path, draw(st.sampled_from(_KINDS)), mode=draw(st.sampled_from((0o700, 0o755))))
    opaque = [Entry(path, EntryKind.DIRECTORY) for path, one in entries.items() if one.kind is EntryKind.OPAQUE]
    return (*opaque, *entries.values())


@given(layers=st.lists(_layer(), min_size=1, max_size=4), order=st.lists(st.integers(0, 3), max_size=8))
def test_the_merged_tree_is_the_same_with_each_tree_once(layers: list[tuple[Entry, ...]], order: list[int]) -> None:
    def merged(names: tuple[Path, ...]) -> Tree:
        tree = Tree.of({})
        for name in names:
            tree = apply_layer_entries(tree, layers[int(name.name)])
        return tree

    lowers = tuple(Path(str(number % len(layers))) for number in order)
    once = each_once(lowers)
    assert sorted(once) == sorted(set(lowers))
    assert merged(once) == merged(lowers)
