"""Root's commands on the store of another user leave it as it is, and that user goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.tiny_root import require_root

USER = 65534


def content(root: Path) -> dict[str, tuple[int, bytes | None]]:
    return {str(path): (path.lstat().st_uid, path.read_bytes() if path.is_file() else None) for path in root.rglob("*")}


@pytest.mark.parametrize("words", [("store", "fsck"), ("store", "gc", "--older-than", "0"), ("store", "du")])
def test_roots_command_on_a_users_store_is_refused_with_the_way_out(tmp_path: Path, words: tuple[str, ...]) -> None:
    require_root()
    store = Store.open(tmp_path / "store")
    store.remember(Digest.of(b"step"), 1)
    for path in (store.root, *store.root.rglob("*")):
        os.lchown(path, USER, USER)
    before = content(store.root)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words, "--store", store.root],
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
    )
    assert done.returncode == 2 and "error[store-of-another]" in done.stderr, done.stderr
    assert f"uid {USER}" in done.stderr and "run relbuild as that user" in done.stderr
    assert content(store.root) == before
