"""What tests of many modules begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import Store, store_processes
from tests.support.journal import Journal
from tests.support.slow_server import SlowServer, slow_server

NOBODY = Path(__file__).parents[1] / "support" / "nobody.pem"
"""A certificate that ended on 2000-01-02, of a key that nobody has."""


@pytest.fixture(autouse=True, scope="module")
def no_authorities() -> Iterator[None]:
    """Have clients read one certificate and not the machine's hundred and forty, which take 20 ms each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(NOBODY))
        yield


@pytest.fixture(autouse=True, scope="module")
def leave_stores() -> Iterator[None]:
    """Leave each module's stores: a process looks after all of its stores whenever it enters another one."""
    yield
    store_processes._leave()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new store."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Notes what stand-ins were asked."""
    return Journal(monkeypatch)


@pytest.fixture
def server() -> Iterator[SlowServer]:
    """A server that does what the path says."""
    with slow_server() as running:
        yield running
