"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.misbehaving_server import MisbehavingServer
from tests.support.registry_fake import FakeRegistry, fake_registry
from tests.support.registry_speaker import Speaker


@pytest.fixture
def misbehaving() -> Iterator[MisbehavingServer]:
    """A server that misbehaves as the path says."""
    running = MisbehavingServer()
    yield running
    running.close()


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        running.held("app").blobs["sha256:" + "a" * 64] = b"0123456789" * 1000
        yield running


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """Another host: a token server, or where blobs are stored."""
    with fake_registry() as running:
        yield running


@pytest.fixture
def speak(tmp_path: Path) -> Iterator[Speaker]:
    with ExitStack() as stack:
        yield Speaker(tmp_path, stack)
