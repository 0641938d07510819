"""Small files of the store are written whole or not at all, and read whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.authenticated_values import SealFault, read_small
from pipeline.store.durable_files import write_result_file

DATA = bytes(range(256)) * 40

# --- written -----------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Callable[[], Path]:
    """Writes the data; returns the file."""

    def write_data() -> Path:
        write_result_file(tmp_path / "result", DATA, drafts=tmp_path, sync=False)
        return tmp_path / "result"

    return write_data


def test_a_file_is_written_to_its_end_where_the_system_takes_less_at_once(
    write: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As write(2) may, at a signal or on a disk that is nearly full."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:1000]))
    assert write().read_bytes() == DATA


def test_a_draft_is_locked_while_it_is_written_so_that_nobody_sweeps_it(
    write: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = os.write, []

    def look(handle: int, data: memoryview) -> int:
        (draft,) = tmp_path.iterdir()
        with draft.open("rb") as other, pytest.raises(BlockingIOError) as caught:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        refused.append(caught.value)
        return real(handle, data)

    monkeypatch.setattr(os, "write", look)
    assert write().read_bytes() == DATA and len(refused) == 1


def test_a_file_is_its_owners_alone(write: Callable[[], Path]) -> None:
    before = os.umask(0)
    try:
        assert write().stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


# --- read --------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the data."""
    (tmp_path / "value").write_bytes(DATA)
    return tmp_path / "value"


def test_a_file_is_read_to_its_end_where_the_system_gives_less_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: real(handle, min(size, 1000)))
    assert read_small(path) == DATA


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    def grow(handle: int) -> os.stat_result:
        found = real(handle)
        monkeypatch.setattr(os, "fstat", real)
        with path.open("ab") as file:
            file.write(b"more" * 5)
        return found

    monkeypatch.setattr(os, "fstat", grow)
    assert read_small(path) == DATA + b"more" * 5


@pytest.mark.parametrize("call", ["open", "read"])
def test_a_file_that_the_disk_cannot_read_is_damaged(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, failing(errno.EIO))
    assert read_small(path) is SealFault.DAMAGED


@pytest.mark.parametrize(("call", "number"), [("open", errno.EACCES), ("open", errno.EMFILE), ("read", errno.ENOMEM)])
def test_another_error_says_nothing_about_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(OSError) as caught:
        read_small(path)
    assert caught.value.errno == number


def failing(number: int) -> Callable[..., Any]:
    def fail(*given: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail
