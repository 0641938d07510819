"""The folder that an error of a full disk names."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cli.full_disk import with_full_disk


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
    found = with_full_disk(OSError(errno.ENOSPC, "No space left on device"), store)
    assert isinstance(found, OSError) and found.filename == str(tmp_path / named)


def test_other_errors_and_those_with_a_file_are_as_they_were(tmp_path: Path) -> None:
    named = OSError(errno.ENOSPC, "No space left on device", "/file")
    for error in (named, OSError(errno.EIO, "broken"), ValueError("x")):
        assert with_full_disk(error, tmp_path) is error
    here = with_full_disk(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "nosuch")
    assert isinstance(here, OSError) and here.filename == str(Path.cwd())
