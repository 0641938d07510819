"""The log of an instance: bounded, and followed over the change of its files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.instances.instance_log import LogFile, read_log


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
        assert step.wait(10)
        step.clear()
        log(b"%030d\n" % number)
    alive.clear()
    reader.join(10)
    assert bytes(seen) == b"before\n" + b"".join(b"%030d\n" % number for number in range(12))


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(read_log(tmp_path, follow=True)) == []
