"""Folders that are put in place whole, copies that share nothing, and what killed processes leave of both."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import atomic_folders, clone
from pipeline.atomic_folders import (
    folder_draft,
    put_folder,
    remove_folder,
    require_writable_folder,
    sweep_folder_drafts,
)
from pipeline.clone import clone_file

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_takes_the_place_of_another_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool
) -> None:
    if not exchanged:
        monkeypatch.setattr(atomic_folders, "_RENAME_EXCHANGE", 1 << 20)  # which no kernel knows
    target = tmp_path / "target"
    for text in ("one", "two"):
        with folder_draft(target) as draft:
            (draft / "inner").mkdir()
            (draft / "inner" / text).write_text(text)
            put_folder(draft, target)
        assert [path.name for path in (target / "inner").iterdir()] == [text]
        assert list(tmp_path.iterdir()) == [target]


def test_a_draft_that_is_not_put_in_place_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder_draft(tmp_path / "target") as draft:
        (draft / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.atomic_folders import folder_draft
with folder_draft(Path(sys.argv[1])) as draft:
    (draft / "file").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_run_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    target = tmp_path / "nginx.report"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(target)], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with folder_draft(target) as living, folder_draft(tmp_path / "nginx") as other:
        sweep_folder_drafts(target)
        sweep_folder_drafts(tmp_path / "nginx")
        assert set(tmp_path.iterdir()) == {living, other}
    assert not left.exists()


@pytest.mark.parametrize("leads_to", ["there", "nowhere"])
@pytest.mark.parametrize("exchanged", [True, False])
def test_a_link_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool, leads_to: str
) -> None:
    if not exchanged:
        monkeypatch.setattr(atomic_folders, "_RENAME_EXCHANGE", 1 << 20)  # which no kernel knows
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("years of work")
    target = tmp_path / "target"
    target.symlink_to(leads_to)
    with folder_draft(target) as draft:
        (draft / "file").touch()
        put_folder(draft, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "there"]
    assert [path.name for path in target.iterdir()] == ["file"] and not target.is_symlink()
    assert (tmp_path / "there" / "mine").read_text() == "years of work"


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("years of work")
    with folder_draft(target) as draft, pytest.raises(NotADirectoryError) as caught:
        put_folder(draft, target)
    assert caught.value.filename == str(target)
    with pytest.raises(NotADirectoryError):
        remove_folder(target)
    assert list(tmp_path.iterdir()) == [target] and target.read_text() == "years of work"


def test_a_link_that_a_killed_process_left_as_a_draft_goes_with_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    (tmp_path / ".target.draft-0123abcd").symlink_to("there")
    sweep_folder_drafts(tmp_path / "target")
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine"]


def test_a_folder_is_removed_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed while its files are removed leaves a draft, and not a folder without some of them."""
    target = tmp_path / "target"
    remove_folder(target)
    (tmp_path / "there").mkdir()
    target.symlink_to("there")
    remove_folder(target)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    (target / "inner").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(atomic_folders.shutil, "rmtree", lambda *_, **__: None)
        remove_folder(target)
    assert not target.exists() and len(list(tmp_path.iterdir())) == 2
    sweep_folder_drafts(target)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# --- copies


@pytest.mark.parametrize("way", ["kernel", "by hand"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_copy_has_the_same_bytes_and_no_common_inode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, size: int
) -> None:
    def cannot(*_: object, **__: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(clone, "CLONE_PIECE", 4096)
    if way == "by hand":
        monkeypatch.setattr(os, "copy_file_range", cannot)
        monkeypatch.setattr(fcntl, "ioctl", cannot)
    (tmp_path / "one").write_bytes(os.urandom(size))
    with (tmp_path / "one").open("rb") as source, (tmp_path / "two").open("wb") as target:
        clone_file(source, target)
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    assert not (tmp_path / "two").samefile(tmp_path / "one")


def test_what_the_kernel_began_is_finished_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.copy_file_range, []

    def fails_the_second_time(*arguments: int, **more: int) -> int:
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.EINVAL, "not here")
        return real(*arguments, **more)

    monkeypatch.setattr(clone, "CLONE_PIECE", 4096)
    monkeypatch.setattr(os, "copy_file_range", fails_the_second_time)
    (tmp_path / "one").write_bytes(bytes(range(256)) * 64)
    with (tmp_path / "one").open("rb") as source, (tmp_path / "two").open("wb") as target:
        clone_file(source, target)
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "copy_file_range", full)
    (tmp_path / "one").write_bytes(b"bytes")
    with (
        (tmp_path / "one").open("rb") as source,
        (tmp_path / "two").open("wb") as target,
        pytest.raises(OSError, match="no space"),
    ):
        clone_file(source, target)


def test_a_folder_in_which_a_file_may_be_made_is_writable_and_stays_as_it_was(tmp_path: Path) -> None:
    require_writable_folder(tmp_path)
    require_writable_folder(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "refused"), [("EROFS", True), ("EACCES", True), ("EOPNOTSUPP", False)])
def test_only_a_refusal_of_the_system_is_one(
    number: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a file system cannot do: it names the folder that was wanted, not the one above that was tried."""
    tried = []

    def fail(path: Path, *_: object) -> int:
        tried.append(path)
        raise OSError(getattr(errno, number), number, str(path))

    monkeypatch.setattr("pipeline.atomic_folders.os.open", fail)
    with pytest.raises(OSError, match=number) if refused else contextlib.nullcontext() as caught:
        require_writable_folder(tmp_path / "output")
    assert tried == [tmp_path]
    assert caught is None or caught.value.filename == str(tmp_path / "output")
