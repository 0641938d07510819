"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.misbehaving_server import MisbehavingServer


@pytest.fixture
def misbehaving() -> Iterator[MisbehavingServer]:
    """A server that misbehaves as the path says."""
    running = MisbehavingServer()
    yield running
    running.close()
