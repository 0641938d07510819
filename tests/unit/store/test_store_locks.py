"""A lock file is removed by its name only while the name is that of the file whose lock is held."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store import Store
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
