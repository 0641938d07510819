"""Mirrors in directories of the test's own, and a store beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from tests.support import mirror_images
from tests.support.moved_tags import opened
from tests.support.other_owners import Give, given_owners
from tests.support.published_images import ImagePublisher


@pytest.fixture
def mirror(tmp_path: Path) -> DirectoryMirror:
    return open_directory(tmp_path / "mirror", create=True, clock=mirror_images.ticking(), host="images.example/team")


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


@pytest.fixture
def published(tmp_path: Path, maker: ImagePublisher) -> Path:
    """A mirror with two products of a host."""
    root = tmp_path / "published"
    for name in ("small", "team/other"):
        maker.publish(opened(root, maker, name), maker.image("1.0", name.rpartition("/")[2]))
    (root / "rules.yaml").write_text("{}\n")
    return root


@pytest.fixture
def root(tmp_path: Path, maker: ImagePublisher) -> Path:
    """A mirror with a signed image."""
    maker.publish(opened(tmp_path / "mirror", maker), maker.image("1.0"))
    return tmp_path / "mirror"


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """A function that makes a user the owner of a path and all below it, as far as relbuild looks."""
    return given_owners(monkeypatch)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder
