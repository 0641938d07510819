"""A tree over an earlier one in a real overlay: commands see what the layer's blob has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.layers import lower_folders, unpack_to_store
from pipeline.sandbox import SandboxRegistry, build_session
from pipeline.store import Store
from tests.support.layered_packages import FIRST, LARGE, SECOND, TIME, Packages, copied, made
from tests.support.trees import Found, read_tree


def shown(tree: dict[str, Found]) -> dict[str, object]:
    """What a path is, whoever owns it: a session's owners are shifted."""
    return {path: (one.kind, one.mode, one.mtime, one.content) for path, one in tree.items()}


@pytest.mark.parametrize("first", [FIRST, SECOND], ids=["what was removed is hidden", "what was hidden is back"])
def test_commands_see_the_changed_layer_and_nothing_of_the_earlier_one(
    store: Store, sandboxes: SandboxRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: dict[str, bytes]
) -> None:
    packages = Packages(store, monkeypatch)
    made(store, packages.layer(large=LARGE, tool=first))
    layer = made(store, packages.layer(TIME + 9, large=LARGE, tool=FIRST if first is SECOND else SECOND))
    lowers = lower_folders([layer], store=store)
    assert len(lowers) == 2
    with build_session(lowers, sandboxes=sandboxes) as session:
        seen = shown(read_tree(session.root))
    whole = shown(read_tree(unpack_to_store(layer, store=copied(store, layer, tmp_path / "other"))))
    assert {path: one for path, one in seen.items() if path.startswith("usr")} == whole


@pytest.mark.parametrize("path", ["usr/old/other", "usr/grows/other"], ids=["gone above", "merged"])
def test_commands_see_what_a_layer_below_has(
    store: Store, sandboxes: SandboxRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    packages = Packages(store, monkeypatch)
    moved = packages.layer(moved={path.rpartition("/")[0]: None, path: b"moved"})
    below = made(store, replace(moved, name="below"))
    made(store, packages.layer(large=LARGE, tool=FIRST))
    layer = made(store, packages.layer(TIME + 9, large=LARGE, tool=SECOND))
    elsewhere = [unpack_to_store(one, store=copied(store, one, tmp_path / one.name)) for one in (below, layer)]
    seen = []
    for lowers in (lower_folders([below, layer], store=store), elsewhere):
        with build_session(lowers, sandboxes=sandboxes) as session:
            seen.append(shown(read_tree(session.root)))
    assert seen[0] == seen[1]
    assert path in seen[0]
