"""A publisher that has published twice to a registry in memory, and is put back as it was for each test."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.transfer import repeated_questions
from tests.support.registry_fake import FakeRegistry, Held
from tests.support.repeated_publisher import VARIABLES, KeptFolder, RepeatedPublisher

PATIENCE = 600.0
"""Seconds for the registry's answers: a machine that does much else may stand still for longer than a registry."""

NOBODY = Path(__file__).with_name("nobody.pem")


@dataclass
class Publisher(RepeatedPublisher):
    """It publishes to a registry in memory."""

    registry: FakeRegistry = field(kw_only=True)

    @property
    def held(self) -> Any:
        return self.registry.held("ns/small")

    def asked(self) -> set[str]:
        """The paths of the requests; where there is no referrers API, whichever thread is first finds that out."""
        paths = [path for _, path, _ in self.registry.requests]
        return {
            path if self.registry.lists_referrers else re.sub("/referrers/.*", "/referrers/", path) for path in paths
        }

    def of(self, text: bytes) -> str:
        """The digest of a manifest that has this text."""
        return next(digest for digest, (_, data) in self.held.manifests.items() if text in data)

    def drop_signature(self) -> None:
        del self.held.tags[next(tag for tag in self.held.tags if tag.endswith(".sig"))]

    def empty_registry(self) -> None:
        self.registry.repositories.clear()


@dataclass(frozen=True)
class PublishedTwice:
    """What two publications left, here and in a registry."""

    folder: Path
    registry: FakeRegistry
    kept: KeptFolder
    repositories: dict[str, Held]
    environment: dict[str, str]
    path: list[str]
    """Environment and folders of modules then: what other tests of the process leave there is no change."""

    @contextlib.contextmanager
    def publisher(self) -> Iterator[Publisher]:
        """A publisher that has published twice, and nothing since."""
        registry = self.registry
        self.kept.restore()
        registry.repositories = copy.deepcopy(self.repositories)
        registry.faults, registry.guard, registry.page = [], None, 1000
        made = new_publisher(self.folder, registry)
        with pytest.MonkeyPatch.context() as patch, made.counting():
            for name in {*os.environ} - {*self.environment, "PYTEST_CURRENT_TEST"}:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "path", [*self.path])
            patch.setattr(repeated_questions, "ANSWER_SECONDS", PATIENCE)
            yield made


def new_publisher(folder: Path, registry: FakeRegistry) -> Publisher:
    """Return a publisher that has no image yet."""
    to = f"registry+http://{registry.host}/ns"
    program = folder / "program"
    if not program.exists():
        (program / "code").mkdir(parents=True)
        (program / "code" / "module.py").touch()
        (program / "library.so").touch()
    return Publisher(folder / "all", to, began=registry.requests.clear, program=program, registry=registry)


@contextlib.contextmanager
def surroundings(home: Path) -> Iterator[None]:
    """Have the same environment whenever something is published."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("SSL_CERT_FILE", str(NOBODY))
        yield
