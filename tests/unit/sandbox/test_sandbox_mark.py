"""The name of a store's sandboxes: chosen once, by whoever comes first, and whole after a power cut."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.sandbox.sandbox_registry import _mark


def test_it_is_chosen_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        marks = set(pool.map(lambda _: _mark(tmp_path), range(32)))
    assert marks == {(tmp_path / "mark").read_text()}
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


@pytest.mark.parametrize("damaged", [b"", b"0123`567", b"0123456\xb7", b"0123", b"01234567\n", b"../../.."])
def test_what_a_power_cut_or_rot_left_of_it_is_chosen_anew(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "mark").write_bytes(damaged)
    assert re.fullmatch("[0-9a-f]{8}", _mark(tmp_path))
    assert _mark(tmp_path) == (tmp_path / "mark").read_text()


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def syncing(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", syncing)
    _mark(tmp_path)
    assert synced == [(tmp_path / "mark").stat().st_ino, tmp_path.stat().st_ino]
