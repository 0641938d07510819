"""A tree over an earlier one in a real overlay: commands see what the layer's blob has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.layers import lower_folders, unpack_to_store
from pipeline.sandbox import SandboxRegistry, build_session
from pipeline.store import Store
from tests.support.layered_packages import BELOW, DROPPED, FIRST, LARGE, SECOND, TIME, Packages, copied, made
from tests.support.trees import read_tree

UPDATES = {"nothing": SECOND, **DROPPED}


def shown(lowers: Sequence[Path], sandboxes: SandboxRegistry) -> dict[str, object]:
    """What a session on the trees shows below usr, whoever owns it: a session's owners are shifted."""
    with build_session(lowers, sandboxes=sandboxes) as session:
        tree = read_tree(session.root / "usr")
    return {path: (one.kind, one.mode, one.mtime, one.content, one.link) for path, one in tree.items()}


@pytest.mark.parametrize("dropped", UPDATES)
def test_commands_see_what_the_blobs_have(
    store: Store, sandboxes: SandboxRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: str
) -> None:
    packages = Packages(store, monkeypatch)
    below = [made(store, replace(packages.layer(below=files), name=name)) for name, files in BELOW.items()]
    made(store, packages.layer(large=LARGE, tool=FIRST))
    layer = made(store, packages.layer(TIME + 9, large=LARGE, tool=UPDATES[dropped]))
    for one in below:
        elsewhere = copied(store, one, tmp_path / one.name)
        with store.reading(layer.blob.digest) as file, elsewhere.writer() as blob:
            blob.write(file.read())
        lowers = lower_folders([one, layer], store=store)
        assert len(lowers) == (3 if dropped == "nothing" else 2)
        whole = [unpack_to_store(each, store=elsewhere) for each in (one, layer)]
        assert shown(lowers, sandboxes) == shown(whole, sandboxes)
