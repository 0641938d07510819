"""The log of a running instance, followed into a pipe, a terminal and a file."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.instances import HostedInstance, InstanceRecord, host_instance
from pipeline.store import Store
from tests.support.patience import HUNG

RECORD = InstanceRecord(
    name="", product="x", version="1", digest=Digest.of(b"image"), subject="x", started=1_000, detached=True
)


@contextlib.contextmanager
def hosted(store: Path) -> Iterator[HostedInstance]:
    """A running instance `x-1`, which has printed a line."""
    with host_instance(Store.open(store).instances, RECORD, None, lambda: 42.0) as instance:
        instance.log(b"one\n")
        yield instance
        instance.ended(0)


@contextlib.contextmanager
def following(store: Path, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "pipeline", "logs", "-f", "x-1", "--store", str(store)]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE) as logs:
        try:
            yield logs
        finally:
            logs.kill()


def await_text(read: Callable[[], bytes], text: bytes) -> None:
    until = time.monotonic() + HUNG
    seen = b""
    while text not in seen:
        assert time.monotonic() < until, seen
        seen += read()


def test_it_ends_with_its_reader_though_nothing_more_is_printed(tmp_path: Path) -> None:
    with hosted(tmp_path), following(tmp_path, subprocess.PIPE) as logs:
        assert logs.stdout is not None and logs.stderr is not None
        assert logs.stdout.readline() == b"one\n"
        logs.stdout.close()
        assert logs.wait(HUNG) == 141
        assert logs.stderr.read() == b""


@pytest.mark.parametrize("kind", ["file", "terminal", "pipe"])
def test_it_goes_on_until_the_instance_ends_where_there_is_a_reader(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        written = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        reader = os.open(tmp_path / "out", os.O_RDONLY)
    else:
        reader, written = pty.openpty() if kind == "terminal" else os.pipe()
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, reader)
        with hosted(tmp_path) as instance:
            logs = closing.enter_context(following(tmp_path, written))
            os.close(written)
            await_text(lambda: os.read(reader, 100), b"one")
            for _ in range(3):  # Each is written after a reader was looked for.
                instance.log(b"more\n")
                await_text(lambda: os.read(reader, 100), b"more")
        assert logs.wait(HUNG) == 0
