"""A night moves no tag to an image from which a person moved it back, in directories and registries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_history import withdrawn_digests
from pipeline.mirror.tag_signing import SignedTag
from pipeline.model.publication import Move, MoveCause, PastMove, Publication, RecordedStatement
from pipeline.release import promote, rollback, verify_reference
from tests.support.moved_tags import opened, resolved
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry

A, B, C, D = (Digest.of(name.encode()) for name in "abcd")


@pytest.fixture(params=["directory", "registry"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, maker: ImagePublisher) -> Iterator[Repository]:
    """A repository whose `latest` was moved back from 1.1 to 1.0."""
    with fake_registry() as registry, open_mirror(registry) as there:
        found = there.repository("small") if request.param == "registry" else opened(tmp_path / "mirror", maker)
        for version in ("1.0", "1.1"):
            maker.publish(found, maker.image(version), tags=(version, "latest"))
        rollback(parse_address(f"{found.url}:latest"), None, key(), RULES, maker.build_env)
        yield found


def night(repository: Repository, maker: ImagePublisher, version: str, signer: int = 0) -> Publication:
    tags = (version, "latest")
    image = maker.image(version)
    return maker.publish(repository, image, tags=tags, read_back=True, leave_moved_back=True, signer=key(signer))


def test_a_night_leaves_a_tag_that_was_moved_back_from_its_image(repository: Repository, maker: ImagePublisher) -> None:
    before = resolved(repository, "latest")
    done = night(repository, maker, "1.1")
    assert (done.moved, done.unmoved, done.left) == ((), ("1.1",), (("latest", before),))
    assert resolved(repository, "latest") == before == maker.image("1.0").digest


def test_what_is_new_moves_it_and_what_was_withdrawn_does_not(repository: Repository, maker: ImagePublisher) -> None:
    assert [move.tag for move in night(repository, maker, "1.2").moved] == ["1.2", "latest"]
    newest = resolved(repository, "latest")
    assert night(repository, maker, "1.1").left == (("latest", newest),)
    assert [move.tag for move in night(repository, maker, "1.0").moved] == ["latest"]


def test_a_person_can_publish_it_and_then_a_night_moves_it_again(repository: Repository, maker: ImagePublisher) -> None:
    assert [move.tag for move in maker.publish(repository, maker.image("1.1")).moved] == ["latest"]
    night(repository, maker, "1.2")
    assert [move.tag for move in night(repository, maker, "1.1").moved] == ["latest"]


def test_a_promotion_moves_back_too(repository: Repository, maker: ImagePublisher) -> None:
    newest = night(repository, maker, "1.2").digest
    promote(parse_address(f"{repository.url}:1.1"), "latest", key(), RULES, maker.build_env)
    assert night(repository, maker, "1.2").left == (("latest", maker.image("1.1").digest),)
    promote(parse_address(f"{repository.url}:1.2"), "latest", key(), RULES, maker.build_env)
    assert resolved(repository, "latest") == newest and night(repository, maker, "1.2").left == ()


def test_who_cannot_sign_moves_nothing_back(repository: Repository, maker: ImagePublisher) -> None:
    """A move that another key signed binds no night whose key has signed the tag."""
    maker.publish(repository, maker.image("1.2"), signer=key(1))
    first = maker.image("1.0").digest
    rollback(parse_address(f"{repository.url}:latest"), first, key(), RULES, maker.build_env)
    assert resolved(repository, "latest") == first
    newest = night(repository, maker, "1.2", signer=1)
    assert ([move.tag for move in newest.moved], newest.left) == (["1.2", "latest"], ())


def test_the_first_night_with_another_key_knows_of_no_rollback(repository: Repository, maker: ImagePublisher) -> None:
    """What its key did not sign decides nothing: else who can write to the mirror could keep a tag from a new image."""
    done = night(repository, maker, "1.1", signer=1)
    assert ([move.tag for move in done.moved], done.left) == (["latest"], ())


def test_a_new_image_reads_no_history(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> tuple[RecordedStatement, ...]:
        raise AssertionError("read")

    monkeypatch.setattr("pipeline.mirror.tag_history.signed_statements", refused)
    assert night(repository, maker, "1.2").moved
    with pytest.raises(AssertionError, match="read"):
        night(repository, maker, "1.1")


def test_statements_that_were_listed_are_not_taken_for_a_second_try(
    maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another publisher moves the tag between the look at its history and the move."""
    announce, relied_on = SignedTag.announce, []

    def overtaken(self: SignedTag, move: Move, listed: tuple[RecordedStatement, ...] | None = None) -> None:
        relied_on.append(listed is not None)
        if len(relied_on) == 1:
            maker.publish(self.repository, maker.image("1.1"))
        announce(self, move, listed)

    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        maker.publish(repository, maker.image("1.0"))
        monkeypatch.setattr(SignedTag, "announce", overtaken)
        wanted = maker.image("1.2")
        done = maker.publish(repository, wanted, read_back=True, leave_moved_back=True)
        assert (relied_on, resolved(repository, "latest")) == ([True, False, False], wanted.digest)
        assert [move.before for move in done.moved] == [maker.image("1.1").digest]
        verify_reference(parse_address(f"{repository.url}:latest"), key().public, maker.build_env)


def test_tags_that_stay_are_told_in_their_order(repository: Repository, maker: ImagePublisher) -> None:
    tags = ("1", "1.0", "latest")
    for version in ("1.0", "1.1"):
        maker.publish(repository, maker.image(version), tags=tags)
    for tag in tags:
        rollback(parse_address(f"{repository.url}:{tag}"), None, key(), RULES, maker.build_env)
    done = maker.publish(repository, maker.image("1.1"), tags=tags, read_back=True, leave_moved_back=True)
    assert [tag for tag, _ in done.left] == list(tags)


def past(*moves: tuple[Digest | None, Digest, MoveCause]) -> tuple[PastMove, ...]:
    return tuple(
        PastMove(Move("latest", before, after, number, why), str(number), True, number)
        for number, (before, after, why) in enumerate(moves, 1)
    )


_PUBLISHED = ((None, A, MoveCause.PUBLISH), (A, B, MoveCause.PUBLISH), (B, C, MoveCause.PUBLISH))


@pytest.mark.parametrize(
    ("moves", "withdrawn"),
    [
        ((), set()),
        (_PUBLISHED, set()),
        ((*_PUBLISHED, (C, B, MoveCause.ROLLBACK)), {C}),
        ((*_PUBLISHED, (C, A, MoveCause.ROLLBACK)), {B, C}),
        ((*_PUBLISHED, (C, B, MoveCause.ROLLBACK), (B, A, MoveCause.ROLLBACK)), {B, C}),
        ((*_PUBLISHED, (C, D, MoveCause.ROLLBACK)), {C}),
        ((*_PUBLISHED, (C, B, MoveCause.ROLLBACK), (B, C, MoveCause.PROMOTE)), {B}),
        ((*_PUBLISHED, (C, B, MoveCause.ROLLBACK), (B, C, MoveCause.PUBLISH)), set()),
        ((*_PUBLISHED, (C, B, MoveCause.ROLLBACK), (B, D, MoveCause.PUBLISH)), {C}),
        (
            (
                *_PUBLISHED,
                (C, A, MoveCause.ROLLBACK),
                (A, C, MoveCause.PUBLISH),
                (C, B, MoveCause.ROLLBACK),
            ),
            {C},
        ),
        (((A, B, MoveCause.ROLLBACK),), {A}),
        (((None, A, MoveCause.PROMOTE),), set()),
    ],
)
def test_what_was_withdrawn_is_known_from_the_moves_that_were_made(
    moves: tuple[tuple[Digest | None, Digest, MoveCause], ...], withdrawn: set[Digest]
) -> None:
    assert withdrawn_digests(past(*moves)) == withdrawn


def test_a_move_that_was_not_made_withdraws_nothing() -> None:
    *made, last = past(*_PUBLISHED, (C, B, MoveCause.ROLLBACK))
    assert withdrawn_digests((*made, PastMove(last.move, last.record, False, last.number))) == frozenset()
