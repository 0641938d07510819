"""What is made from files is made again when one of them, or what was looked for, has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.beneath import Folder, ReadCache, is_there, list_folder, logged_reads, read_file

LIMIT = 100


class Made:
    """A value from a file, a file that is not there, and the names in a folder; counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "names").mkdir()
        (folder / "names" / "one").touch()
        (folder / "file").write_text("a")
        self.cache: ReadCache[str] = ReadCache(2)
        self.times = 0

    def get(self, key: str = "key") -> str:
        return self.cache.get(key, self._make)

    def _make(self) -> str:
        self.times += 1
        inside = Folder(self.folder)
        return f"{inside.read('file', LIMIT)!r} {inside.has_file('absent')} {list_folder(self.folder / 'names')}"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def _swap(path: Path) -> None:
    before = path.stat()
    path.write_text("b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _swap(folder / "file"),
        lambda folder: _link(folder / "file"),
        lambda folder: (folder / "file").unlink(),
        lambda folder: (folder / "absent").touch(),
        lambda folder: (folder / "absent").symlink_to("file"),
        lambda folder: (folder / "names" / "two").touch(),
        lambda folder: (folder / "names" / "one").unlink(),
    ],
)
def test_a_change_of_what_was_read_is_seen(made: Made, change: Callable[[Path], object]) -> None:
    first = made.get()
    assert made.get() == first and made.times == 1
    change(made.folder)
    try:
        made.get()
    except FileNotFoundError:
        assert not (made.folder / "file").exists()
    assert made.times == 2


def test_what_changed_while_it_was_read_is_not_kept(made: Made) -> None:
    def act() -> str:
        read = read_file(made.folder / "file", LIMIT).decode()
        _swap(made.folder / "file")
        return read

    assert [made.cache.get("other", act), made.cache.get("other", act), made.cache.get("other", act)] == ["a", "b", "b"]


def test_what_was_opened_alone_is_not_kept(made: Made) -> None:
    """What was read of an open file is not known."""
    for _ in range(2):
        made.cache.get("other", lambda: Folder(made.folder).open("file").close() or made.get())
    assert made.times == 1 and made.cache.get("other", lambda: "another") == "another"


def test_the_oldest_is_forgotten(made: Made) -> None:
    for key in ("a", "b", "c", "b", "c"):
        made.get(key)
    assert made.times == 3
    made.get("a")
    assert made.times == 4


def test_who_asks_has_read_what_is_kept(made: Made) -> None:
    """A log has what a value depends on, also where it was read before."""
    with logged_reads() as first:
        made.get()
    with logged_reads() as again:
        made.get()
    assert made.times == 1
    for log in (first, again):
        assert set(log.contents) == {str(made.folder / "file")}
        assert log.looked == {str(made.folder / "absent"): {0}}
        assert set(log.listed) == {str(made.folder / "names")}


def test_a_file_is_named_by_where_its_path_leads_behind_a_link(tmp_path: Path) -> None:
    """`link/../file` is beside the folder that the link leads to, and not what its text says."""
    for name in ("here", "there/inner"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("here/file", "there/file"):
        (tmp_path / name).write_text("the same")
    (tmp_path / "here" / "link").symlink_to("../there/inner")
    with logged_reads() as log:
        read_file(tmp_path / "here" / "link" / ".." / "file", LIMIT)
        is_there(tmp_path / "here" / "link" / ".." / "absent")
        list_folder(tmp_path / "here" / "link" / "..")
    named = [*log.contents, *log.looked, *log.listed]
    assert [os.path.realpath(one) for one in named] == [str(tmp_path / "there" / one) for one in ("file", "absent", "")]
