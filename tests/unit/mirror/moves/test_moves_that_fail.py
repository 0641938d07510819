"""A tag that cannot be moved, for whatever reason, keeps no other from its place, and all that failed is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, RelbuildError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository, TagConflict
from pipeline.mirror.tag_moves import TagMover
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import list_statements
from pipeline.release import copy, verify_reference
from pipeline.release.copy import CopyResult, TagPairs, _CopyJob
from tests.support.moved_tags import at, resolved
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import FakeRegistry, Fault, fake_registry

TAGS = ("1.1.0", "1.1", "1", "latest")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


@pytest.fixture
def repository(registry: FakeRegistry, maker: ImagePublisher) -> Iterator[Repository]:
    """A repository in a registry whose tags all point to 1.0."""
    with open_mirror(registry) as there:
        found = there.repository("small")
        for version in ("0.9", "1.0"):
            maker.publish(found, maker.image(version), tags=TAGS)
        yield found


def failing(real: Callable[..., Any], error: RelbuildError, tag: str = "1.1") -> Callable[..., Any]:
    """Fail for one tag of `SignedTag`, `TagMover` or a repository; `real` for all others."""

    def either(self: Any, *given: Any, **named: Any) -> Any:
        of = self.tag if isinstance(self, SignedTag) else given[0]
        if of == tag:
            raise error
        return real(self, *given, **named)

    return either


def published(repository: Repository, maker: ImagePublisher, **options: Any) -> RelbuildError:
    """Publish 1.1, of which one tag cannot be moved; return the error."""
    with pytest.raises(RelbuildError) as caught:
        maker.publish(repository, maker.image("1.1"), tags=TAGS, **options)
    return caught.value


def codes(error: RelbuildError) -> list[str]:
    return [problem.code for problem in error.problems]


def moved(repository: Repository, maker: ImagePublisher) -> set[str]:
    new = maker.image("1.1").digest
    return {tag for tag in TAGS if repository.resolve(tag) == new}


def all_verify(repository: Repository, maker: ImagePublisher) -> None:
    for tag in TAGS:
        verify_reference(parse_address(f"{repository.url}:{tag}"), key().public, maker.build_env)


BUSY = EnvironmentLacking("registry-failing", "the registry fails")


def test_a_registry_that_fails_while_a_move_is_withdrawn_stops_no_other_tag(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken: Any = TagConflict("1.1", None, written=True)
    monkeypatch.setattr(RegistryRepository, "point", failing(RegistryRepository.point, overtaken))
    monkeypatch.setattr(SignedTag, "withdraw", failing(SignedTag.withdraw, BUSY))
    error = published(repository, maker)
    assert type(error) is PublicationRefused and codes(error) == ["tag-overtaken", "registry-failing"]
    assert moved(repository, maker) == {"1.1.0", "1", "latest"}
    monkeypatch.undo()
    all_verify(repository, maker)


def test_nothing_is_asked_of_a_tag_of_which_nothing_was_announced(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = maker.image("1.0")
    tag = immutable_tag("1.0", old.config.created, old.digest)
    asked: list[str] = []
    resolve = RegistryRepository.resolve

    def resolving(self: RegistryRepository, name: str) -> Digest | None:
        asked.append(name)
        return resolve(self, name)

    monkeypatch.setattr(RegistryRepository, "resolve", resolving)
    monkeypatch.setattr(SignedTag, "withdraw", lambda *_: pytest.fail("nothing was announced"))
    with pytest.raises(PublicationRefused, match="is never moved"):
        maker.publish(repository, maker.image("1.1"), tags=(tag, "latest"))
    assert asked.count(tag) == 2  # by the gate, and before it would be signed
    assert resolved(repository, "latest") == maker.image("1.1").digest


def test_a_tag_that_the_registry_refuses_is_confirmed_where_it_is_until_it_is_published_again(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher
) -> None:
    """What is announced each time and never made would make what was before it too old to count."""
    registry.faults.append(Fault("PUT", "/manifests/1[.]1$", lambda request: request.refuse(403, "DENIED")))
    error = published(repository, maker)
    assert type(error) is EnvironmentLacking and codes(error) == ["registry-denied"]
    assert moved(repository, maker) == {"1.1.0", "1", "latest"}
    newest = list_statements(repository, repository.identity, "1.1")[0].statement
    assert newest.renews and newest.move.after == maker.image("1.0").digest
    all_verify(repository, maker)
    again = maker.publish(repository, maker.image("1.1"), tags=TAGS)
    assert [move.tag for move in again.moved] == ["1.1"]
    all_verify(repository, maker)


def test_a_move_that_was_lost_to_another_before_the_gate_failed_is_withdrawn(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement has a higher number than what the other one signed, and would make that look replayed."""
    point, answers = RegistryRepository.point, iter([TagConflict("1.1", maker.image("1.2").digest)])

    def pointing(self: RegistryRepository, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        if tag == "1.1" and (conflict := next(answers, None)) is not None:
            raise conflict
        point(self, tag, cleared, expected)

    def closed(self: TagMover, cleared: Cleared, tag: str, found: Digest | None) -> bool:
        if found == maker.image("1.2").digest:
            raise BUSY
        return True

    monkeypatch.setattr(RegistryRepository, "point", pointing)
    monkeypatch.setattr(TagMover, "_gate_saw", closed)
    assert codes(published(repository, maker)) == ["registry-failing"]
    newest = list_statements(repository, repository.identity, "1.1")[0].statement
    assert newest.renews and newest.move.after == maker.image("1.0").digest
    assert moved(repository, maker) == {"1.1.0", "1", "latest"}


@pytest.mark.parametrize(
    ("door", "name", "nightly"),
    [
        (SignedTag, "announce", False),
        (TagMover, "_begin", True),
        (TagMover, "_confirm", False),
        (TagMover, "_was_moved_back", True),  # asked by nights alone
    ],
    ids=["sign", "resolve", "confirm", "look for moves back"],
)
def test_whatever_fails_of_one_tag_stops_no_other(
    door: type, name: str, nightly: bool, repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_up = VerificationError("move-numbers-used-up", "the last number is used up")
    monkeypatch.setattr(door, name, failing(getattr(door, name), used_up))
    error = published(repository, maker, leave_moved_back=nightly, read_back=nightly)
    assert type(error) is VerificationError and codes(error) == ["move-numbers-used-up"]
    assert moved(repository, maker) | {"1.1"} == set(TAGS)
    monkeypatch.undo()
    all_verify(repository, maker)


def test_what_fails_of_several_tags_is_told_once_each(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken: Any = TagConflict("1.1", None, written=True)
    monkeypatch.setattr(RegistryRepository, "point", failing(RegistryRepository.point, overtaken))
    for tag in ("1", "latest"):  # the same words of both
        monkeypatch.setattr(SignedTag, "confirm", failing(SignedTag.confirm, BUSY, tag))
    error = published(repository, maker)
    assert type(error) is PublicationRefused and codes(error) == ["tag-overtaken", "registry-failing"]
    monkeypatch.undo()
    all_verify(repository, maker)


def test_a_copy_that_ends_tells_what_was_refused_before(
    mirror: Path, maker: ImagePublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted((maker.image("1.0"), maker.image("1.1")), key=lambda one: one.digest)

    def ending(_: Any, digest: Digest, tags: TagPairs, refused: list[RelbuildError]) -> tuple[CopyResult, ...]:
        if digest == first.digest:
            raise PublicationRefused("tag-overtaken", "somebody was faster")
        assert digest == second.digest
        raise BUSY

    monkeypatch.setattr(_CopyJob, "copy_one", ending)
    there = parse_address(f"dir:{tmp_path / 'there'}/small")
    with pytest.raises(EnvironmentLacking) as caught:
        copy(at(mirror, ""), there, key(), RULES, maker.build_env)
    assert codes(caught.value) == ["registry-failing", "tag-overtaken"]
