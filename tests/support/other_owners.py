"""Folders of other users, as far as a directory mirror looks, and publications to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import mirror_owner
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.progress import QUIET
from tests.support.published_images import ImagePublisher

OTHER = 4711

Give = Callable[[int, Path], None]


def given_owners(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Return a function that makes a user the owner of a path and all below it, as far as relbuild looks."""
    owned: dict[Path, int] = {}
    real = mirror_owner.owner

    def owner(seen: os.stat_result) -> int:
        for path in sorted(owned, key=lambda one: len(one.parts), reverse=True):
            if any(os.path.samestat(one.lstat(), seen) for one in (path, *path.rglob("*")) if os.path.lexists(one)):
                return owned[path]
        return real(seen)

    monkeypatch.setattr(mirror_owner, "owner", owner)
    return lambda user, path: owned.update({path: user})


def publish(root: Path, maker: ImagePublisher) -> None:
    access = MirrorAccess({}, QUIET, maker.clock, maker.store)
    with access.repository(parse_address(f"dir:{root}/small"), create=True, write=True) as repository:
        maker.publish(repository, maker.image("1.0"))


def refused(root: Path, maker: ImagePublisher) -> str:
    """Return the message of the error with which publishing ends; nothing is written."""
    before = sorted(root.rglob("*"))
    with pytest.raises(UsageError, match="mirror-not-own") as caught:
        publish(root, maker)
    assert sorted(root.rglob("*")) == before
    (problem,) = caught.value.problems
    hint = problem.hint or ""
    assert problem.place == f"dir:{root}" and "have root move it away and make an empty folder" in hint
    assert "chown" not in hint
    return problem.message
