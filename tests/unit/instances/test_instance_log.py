"""The log of an instance: bounded, and followed over the change of its files."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from pipeline.instances.instance_log import LogFile, read_log
from tests.support.patience import HUNG


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    log = LogFile(tmp_path, limit=100)
    yield log
    log.close()


def test_it_keeps_the_newest_and_no_more_than_twice_its_limit(log: LogFile, tmp_path: Path) -> None:
    for number in range(100):
        log(b"line %04d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    text = b"".join(read_log(tmp_path))
    assert 100 <= len(text) <= 200
    assert text.endswith(b"line 0098\nline 0099\n") and text.startswith(b"line 00")


def test_a_piece_that_is_larger_than_the_limit_is_kept_whole(log: LogFile, tmp_path: Path) -> None:
    log(b"x" * 300)
    log(b"y")
    assert b"".join(read_log(tmp_path)) == b"x" * 300 + b"y"


@pytest.mark.parametrize(("tail", "text"), [(0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")])
def test_the_last_lines(log: LogFile, tmp_path: Path, tail: int, text: bytes) -> None:
    log(b"a\nb\nc")
    assert b"".join(read_log(tmp_path, tail=tail)) == text


def test_one_that_is_followed_loses_nothing_when_the_file_changes(log: LogFile, tmp_path: Path) -> None:
    log(b"before\n")
    alive, seen = threading.Event(), bytearray()
    alive.set()

    def follow() -> None:
        for piece in read_log(tmp_path, follow=True, running=alive.is_set):
            seen.extend(piece)
            step.set()

    step = threading.Event()
    reader = threading.Thread(target=follow)
    reader.start()
    for number in range(12):  # Each is read before the next is written: what is renamed twice meanwhile is gone.
        assert step.wait(HUNG)
        step.clear()
        log(b"%030d\n" % number)
    alive.clear()
    reader.join(HUNG)
    assert bytes(seen) == b"before\n" + b"".join(b"%030d\n" % number for number in range(12))


class FullDisk:
    """A file on a disk that has room for some bytes."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self.file, self.room = file, room

    def write(self, piece: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(piece[: self.room])
        self.room -= written
        return written

    def close(self) -> None:
        self.file.close()


def test_what_a_full_disk_did_not_take_is_counted_and_said_later(log: LogFile, tmp_path: Path) -> None:
    disk = FullDisk(cast(BinaryIO, log._file), room=4)
    log._file = cast(BinaryIO, disk)
    log(b"kept and not kept\n")
    log(b"not kept\n")
    disk.room = 1000
    log(b"kept again\n")
    text = b"".join(read_log(tmp_path))
    assert text == b"kept\n[relbuild: 23 bytes not kept: the log could not be written]\nkept again\n"


def test_a_log_whose_next_file_cannot_be_made_is_made_later(tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    log = LogFile(folder, limit=10)
    log(b"123456789\n")
    folder.rename(tmp_path / "away")
    log(b"lost\n")
    (tmp_path / "away").rename(folder)
    log(b"found\n")
    log.close()
    assert b"[relbuild: 5 bytes not kept" in b"".join(read_log(folder))
    assert b"".join(read_log(folder)).endswith(b"found\n")


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(read_log(tmp_path, follow=True)) == []
