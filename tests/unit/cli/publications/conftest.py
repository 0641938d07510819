"""A publisher that has published twice to a registry: made once, and put back as it was for each test."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.published_twice import PublishedTwice, Publisher, new_publisher, surroundings
from tests.support.registry_fake import fake_registry
from tests.support.repeated_publisher import KeptFolder


@pytest.fixture(scope="session")
def published_twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], PublishedTwice]]:
    """Publish twice to a registry with or without the referrers API, when that is asked for first."""
    made: dict[bool, PublishedTwice] = {}
    with contextlib.ExitStack() as closing:

        def get(referrers: bool) -> PublishedTwice:
            if referrers not in made:
                folder = tmp_path_factory.mktemp("published")
                registry = closing.enter_context(fake_registry(referrers=referrers))
                publisher = new_publisher(folder, registry)
                with surroundings(folder / "home"), publisher.counting():
                    publisher.build()
                    publisher.publish_twice()
                    environment, path = dict(os.environ), [*sys.path]
                    environment.pop("PYTEST_CURRENT_TEST", None)
                kept = KeptFolder.keep(publisher.folder)
                repositories = copy.deepcopy(registry.repositories)
                made[referrers] = PublishedTwice(folder, registry, kept, repositories, environment, path)
            return made[referrers]

        yield get


@contextlib.contextmanager
def _again(before: PublishedTwice) -> Iterator[Publisher]:
    with before.publisher() as made:
        yield made


@pytest.fixture
def publisher(published_twice: Callable[[bool], PublishedTwice]) -> Iterator[Publisher]:
    """It has published twice, to a registry with the referrers API: the second publication changed nothing."""
    with _again(published_twice(True)) as made:
        yield made


@pytest.fixture(params=[True, False], ids=["with the referrers API", "without it"])
def to_each(request: pytest.FixtureRequest, published_twice: Callable[[bool], PublishedTwice]) -> Iterator[Publisher]:
    """It has published twice, to either kind of registry."""
    with _again(published_twice(request.param)) as made:
        yield made
