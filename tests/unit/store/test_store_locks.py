"""Collecting garbage beside other processes removes neither the locks that they hold, nor what they use."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import DiffId
from pipeline.store import Store, check_store, collect_garbage, unpacked_trees
from pipeline.store.content_store import last_stamped
from pipeline.store.locks import hold_lock, remove_unheld
from pipeline.store.store_processes import oldest_other_process


@pytest.fixture
def before_locking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something happen once between the next opening of a file and the attempt to lock it."""
    really = fcntl.flock

    def once(happen: Callable[[], None]) -> None:
        def late(handle: int, how: int) -> None:
            if how & fcntl.LOCK_NB:
                monkeypatch.setattr(fcntl, "flock", really)
                happen()
            really(handle, how)

        monkeypatch.setattr(fcntl, "flock", late)

    return once


def is_held(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_lock_that_was_made_again_is_not_removed(
    tmp_path: Path, before_locking: Callable[[Callable[[], None]], None]
) -> None:
    """Another collector removed the file, and a builder made and locked the next one, since this one opened it."""
    path = tmp_path / "lock"
    path.touch()
    builders: list[int] = []

    def meanwhile() -> None:
        assert remove_unheld(path)
        builders.append(hold_lock(path))

    before_locking(meanwhile)
    assert not remove_unheld(path)
    assert is_held(path)  # The next builder waits for this very file.
    os.close(builders[0])
    assert remove_unheld(path) and not path.exists()


def test_a_lock_that_another_removed_meanwhile_is_no_error(
    tmp_path: Path, before_locking: Callable[[Callable[[], None]], None]
) -> None:
    path = tmp_path / "lock"
    path.touch()
    before_locking(path.unlink)
    assert not remove_unheld(path)


def test_a_process_that_registered_again_under_its_name_counts(
    tmp_path: Path, before_locking: Callable[[Callable[[], None]], None]
) -> None:
    """Its file was taken for a leftover, before it was locked: it made another, which is not removed."""
    root = Store.open(tmp_path / "store").root
    path = root / "users" / "1-cafe"
    path.touch()
    held: list[int] = []

    def meanwhile() -> None:
        path.unlink()
        held.append(hold_lock(path))

    before_locking(meanwhile)
    assert oldest_other_process(root) is not None
    assert is_held(path) and oldest_other_process(root) is not None
    os.close(held[0])
    assert oldest_other_process(root) is None and not path.exists()


def test_a_process_that_is_gone_meanwhile_does_not_count(
    tmp_path: Path, before_locking: Callable[[Callable[[], None]], None]
) -> None:
    root = Store.open(tmp_path / "store").root
    path = root / "users" / "1-cafe"
    path.touch()
    before_locking(path.unlink)
    assert oldest_other_process(root) is None


@pytest.mark.parametrize("days", [3, 4000, -3])
def test_what_a_running_process_uses_is_left_whatever_the_clock_was_when_it_registered(
    tmp_path: Path, days: int
) -> None:
    """The clock was ahead and is set back, or was behind and is set right."""
    store, now = Store.open(tmp_path / "store"), time.time()
    path = store.root / "users" / "1-cafe"
    held = hold_lock(path)
    os.utime(path, (now + days * 86400,) * 2)
    ages = {"now": 0.0, "a day ago": 1.0, "when it registered": max(0.0, -days), "before": 6.0}
    blobs = {name: store.put(name.encode()) for name in ages}
    for name, digest in blobs.items():
        for file in (store.blob(digest), last_stamped(store, digest)):
            os.utime(file, (now - ages[name] * 86400,) * 2)
    done = collect_garbage(store, now + 10)
    assert [name for name, digest in blobs.items() if not store.has(digest)] == ["before"]
    assert done.spared_since is not None and done.spared_since <= time.time() - 2 * 86400
    os.close(held)
    collect_garbage(store, now + 10)
    assert not any(store.has(digest) for digest in blobs.values())


def test_a_tree_that_is_collected_while_it_is_checked_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, layer = Store.open(tmp_path / "store"), DiffId.of(b"layer")
    with store.temporary("tree") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        (folder / "tree" / "root" / "file").write_text("content")
        kept = store.trees.keep(folder / "tree", layer)
    really = unpacked_trees.tree_fault

    def meanwhile(folder: Path, *given: Any, **options: Any) -> object:
        folder.rename(tmp_path / "collected")
        return really(folder, *given, **options)

    monkeypatch.setattr(unpacked_trees, "tree_fault", meanwhile)
    assert check_store(store).damaged == () and store.trees.damages(layer) == 0
    monkeypatch.undo()
    (tmp_path / "collected").rename(kept)
    (kept / "root" / "file").write_text("changed")
    assert [one.kind for one in check_store(store).damaged] == ["tree"] and store.trees.damages(layer) == 1
