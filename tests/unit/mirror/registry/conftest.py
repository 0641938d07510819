"""A registry that fails on demand, and a mirror on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import FakeRegistry, fake_registry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
def mirror(registry: FakeRegistry) -> Iterator[RegistryMirror]:
    with open_mirror(registry) as opened:
        yield opened


@pytest.fixture
def app(mirror: RegistryMirror) -> RegistryRepository:
    return mirror.repository("app")


@pytest.fixture
def reading(registry: FakeRegistry) -> Iterator[RegistryMirror]:
    """The same mirror, opened to read what it is told to have."""
    with open_mirror(registry, read_back=True) as opened:
        yield opened


@pytest.fixture
def old() -> Iterator[FakeRegistry]:
    """A registry without the referrers API, that deletes no tags."""
    with fake_registry(referrers=False, tag_deletion=False) as running:
        yield running
