"""The folder that an error of a full disk names, what frees space there, and where the store can be elsewhere."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import system_errors
from pipeline.cli.write_errors import with_way_out
from pipeline.errors import EnvironmentLacking, Problem


def told(error: OSError, store: Path | None) -> Problem:
    found = with_way_out(error, store)
    assert isinstance(found, EnvironmentLacking) and found.code == "disk-full"
    return found.problems[0]


@pytest.mark.parametrize(("store_free", "here_free", "named"), [(1, 5, "store"), (5, 1, "here")])
def test_the_folder_with_less_space_is_named(
    store_free: int, here_free: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, here = tmp_path / "store", tmp_path / "here"
    store.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    free = {store: store_free, here: here_free}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    assert told(OSError(errno.ENOSPC, "No space left on device"), store).place == str(tmp_path / named)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_way_out_fits_the_file_system_that_is_full(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing results from the store frees nothing on another file system."""
    devices = {tmp_path / "disk/store": 1, tmp_path / "disk/output/x": 1, tmp_path / "other/y": 2}
    monkeypatch.setattr(system_errors, "_device", devices.get)
    store, output, other = devices
    for path in (output, store):
        assert "`relbuild store gc`" in str(told(OSError(number, "full", str(path)), store).hint)
    problem = told(OSError(number, "full", str(other)), store)
    assert problem.place == str(other)
    assert "store gc" not in str(problem.hint) and "on another one" in str(problem.hint)


def test_a_path_that_is_not_made_yet_is_on_the_device_of_the_folder_above(tmp_path: Path) -> None:
    hint = told(OSError(errno.ENOSPC, "full", str(tmp_path / "output/x")), tmp_path / "nosuch/store").hint
    assert "`relbuild store gc`" in str(hint)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_can_be_elsewhere(number: int, tmp_path: Path) -> None:
    """Also if it is a folder above it that cannot be made: `/.cache`, where HOME is `/`."""
    store = tmp_path / "cache" / "store"
    for path in (store, store / "blobs" / "x", store.parent):
        found = with_way_out(OSError(number, "refused", str(path)), store)
        assert isinstance(found, EnvironmentLacking) and found.problems[0].place == str(path)
        assert str(found.problems[0].hint).endswith("for the store, with --store")
    for error in (OSError(number, "refused", str(tmp_path / "output")), OSError(number, "refused")):
        assert with_way_out(error, store) is error


def test_other_errors_are_as_they_were(tmp_path: Path) -> None:
    for error in (OSError(errno.EIO, "broken"), ValueError("x")):
        assert with_way_out(error, tmp_path) is error
    assert told(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "nosuch").place == str(Path.cwd())


def test_a_command_without_a_store_is_not_told_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    problem = told(OSError(errno.ENOSPC, "No space left on device"), None)
    assert problem.place == str(tmp_path)
    for one in (problem, told(OSError(errno.ENOSPC, "full", str(tmp_path / "release.key")), None)):
        assert not any(word in str(one.hint) for word in ("store", "--output"))
        assert str(one.hint).startswith("free space on that file system")
    refused = OSError(errno.EROFS, "refused", str(tmp_path))
    assert with_way_out(refused, None) is refused
