"""Pages replace nobody's files: a folder that is no site is refused, a site of any release goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.site import require_site_folder, write_site
from tests.support import nightly_examples

NIGHT = nightly_examples.nights(2)[-1]


def test_a_persons_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UsageError) as refused:
        require_site_folder(tmp_path)
    assert refused.value.code == "site-not-own" and "'index.html'" in str(refused.value)
    hint = refused.value.problems[0].hint
    assert hint is not None
    (tmp_path / hint.rpartition("/")[2]).touch()
    require_site_folder(tmp_path)


@pytest.mark.parametrize("lost", ["", "data", ".lock"])
def test_a_site_goes_on_whatever_of_its_marks_is_left(lost: str, tmp_path: Path) -> None:
    """A copy has no lock; who wants to begin the history again removes `data`."""
    write_site(NIGHT, tmp_path)
    if lost == "data":
        shutil.rmtree(tmp_path / lost)
    elif lost:
        (tmp_path / lost).unlink()
    require_site_folder(tmp_path)


def test_a_new_or_empty_folder_becomes_a_site_and_a_clone_with_hidden_files_does(tmp_path: Path) -> None:
    require_site_folder(tmp_path / "new" / "site")
    require_site_folder(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".nojekyll").touch()
    require_site_folder(tmp_path)


def test_a_folder_called_as_a_mark_is_none(tmp_path: Path) -> None:
    """A directory mirror has a folder of locks."""
    (tmp_path / ".lock").mkdir()
    (tmp_path / "blobs").mkdir()
    with pytest.raises(UsageError):
        require_site_folder(tmp_path)
