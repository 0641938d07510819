"""How a volume begins: what is copied, and that it is whole or not there."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.sandbox import tree_copy
from pipeline.sandbox.tree_copy import copy_tree, create_copy
from tests.support.patience import HUNG


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def image(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True, mode=0o750)
    (folder / "inner" / "file").write_text("content")
    (folder / "other name").hardlink_to(folder / "inner" / "file")
    (folder / "link").symlink_to("/etc/shadow")
    os.mkfifo(folder / "fifo", 0o620)
    (folder / "inner" / "file").chmod(0o4640)
    os.utime(folder / "inner" / "file", (1000, 1000))
    folder.chmod(0o2771)
    return folder


def test_modes_times_and_links_of_both_kinds_are_kept(tmp_path: Path) -> None:
    with opened(image(tmp_path / "image")) as source:
        create_copy(tmp_path / "volumes" / "v", source, limit=100, shift=0)
    made = tmp_path / "volumes" / "v"
    assert stat.S_IMODE(made.stat().st_mode) == 0o2771
    assert (made / "link").readlink() == Path("/etc/shadow")
    assert stat.S_ISFIFO((made / "fifo").lstat().st_mode)
    one, other = (made / "inner" / "file").stat(), (made / "other name").stat()
    assert (one.st_ino, one.st_nlink, one.st_mtime, stat.S_IMODE(one.st_mode)) == (other.st_ino, 2, 1000, 0o4640)
    assert sorted(path.name for path in made.parent.iterdir()) == [".lock", "v"]


@pytest.fixture
def with_attributes(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file system keeps attributes of users. A tmpfs, where tests may be, keeps none before 6.6."""
    for place in (tmp_path, Path("/var/tmp")):
        with tempfile.TemporaryDirectory(prefix="relbuild-test-", dir=place) as name:
            try:
                os.setxattr(name, "user.note", b"")
            except OSError:
                continue
            yield Path(name)
            return
    pytest.fail("no file system here keeps extended attributes of users: neither that of the tests nor /var/tmp")


def test_attributes_of_users_are_kept(with_attributes: Path) -> None:
    folder = image(with_attributes / "image")
    os.setxattr(folder / "inner" / "file", "user.note", b"kept")
    os.setxattr(folder, "user.note", b"of the folder")
    with opened(folder) as source:
        create_copy(with_attributes / "v", source, limit=100, shift=0)
    assert os.getxattr(with_attributes / "v" / "inner" / "file", "user.note") == b"kept"
    assert os.getxattr(with_attributes / "v", "user.note") == b"of the folder"


def test_a_file_of_two_names_counts_once_and_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with opened(folder) as source, opened(tmp_path / "a") as a, opened(tmp_path / "b") as b:
        assert copy_tree(source, a, limit=7) == 7
        with pytest.raises(BuildError) as caught:
            copy_tree(source, b, limit=6)
    assert caught.value.problems[0].code == "volume-too-large"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with opened(image(tmp_path / "image")) as source, pytest.raises(BuildError):
        create_copy(tmp_path / "volumes" / "v", source, limit=1, shift=0)
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == [".lock"]


def test_one_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with opened(image(tmp_path / "image")) as source:
        create_copy(tmp_path / "v", source, limit=100, shift=0)
    assert list((tmp_path / "v").iterdir()) == []


def test_one_that_was_killed_half_way_is_filled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = tmp_path / "volumes"
    with opened(image(tmp_path / "image")) as source:
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(tree_copy, "copy_attributes", lambda *_: time.sleep(HUNG))
            with contextlib.suppress(BaseException):
                create_copy(volumes / "v", source, limit=100, shift=0)
            os._exit(0)
        deadline = time.monotonic() + HUNG
        while not list(volumes.glob(".half-*/inner/file")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not (volumes / "v").exists()
        create_copy(volumes / "v", source, limit=100, shift=0)
    assert (volumes / "v" / "inner" / "file").read_text() == "content"
    assert sorted(path.name for path in volumes.iterdir()) == [".lock", "v"]


def test_two_who_want_the_same_at_the_same_time_get_one(tmp_path: Path) -> None:
    with opened(image(tmp_path / "image")) as source:
        threads = [
            threading.Thread(target=lambda: create_copy(tmp_path / "v", source, limit=100, shift=0)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (tmp_path / "v" / "other name").read_text() == "content"
    assert not list(tmp_path.glob(".half-*"))
