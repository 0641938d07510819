"""Copies of a command's output to the streams of `exec`."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator

import pytest

from pipeline.cli.attached_streams import CopiedStreams, piped_streams
from pipeline.cli.standard_streams import STDOUT


@contextlib.contextmanager
def stdout_as(target: int) -> Iterator[CopiedStreams]:
    """Streams whose output is copied to `target`, which is closed."""
    before = os.dup(1)
    os.dup2(target, 1)
    os.close(target)
    try:
        yield piped_streams(stdin=False)
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_output_that_is_read_late_is_copied_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    waits: list[float | None] = []
    join = threading.Thread.join

    def waiting(thread: threading.Thread, timeout: float | None = None) -> None:
        waits.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", waiting)
    text = b"x" * 300_000  # More than the two pipes hold.
    with stdout_as(write) as streams, os.fdopen(read, "rb") as reader:
        seen: list[bytes] = []
        late = threading.Thread(target=lambda: seen.append(reader.read(len(text))))
        late.start()
        with os.fdopen(os.dup(streams.given[1]), "wb") as output:
            streams.started()
            output.write(text)
        streams.finish()
        join(late)
    assert seen == [text]
    assert waits == [None, None]


def test_output_that_cannot_be_written_is_an_error() -> None:
    with stdout_as(os.open("/dev/full", os.O_WRONLY)) as streams:
        os.write(streams.given[1], b"text")
        streams.started()
        with pytest.raises(OSError, match="standard output") as raised:
            streams.finish()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, STDOUT)


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with stdout_as(write) as streams:
        os.write(streams.given[1], b"text")
        streams.started()
        streams.finish()
    assert streams.failures == []


def test_streams_are_closed_once() -> None:
    streams = piped_streams(stdin=False)
    streams.started()
    streams.started()
    streams.finish()
    assert streams.given == (-1, -1, -1)
