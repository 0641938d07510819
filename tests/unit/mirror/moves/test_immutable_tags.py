"""An immutable tag is set once: no command moves it, and none gives another image a tag that names a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository, TagConflict, is_auxiliary
from pipeline.mirror.tag_moves import refuse_immutable
from pipeline.mirror.tag_statements import write_statement
from pipeline.model.image import Image
from pipeline.model.publication import Move, MoveCause, TagStatement
from pipeline.release import copy, move, promote, rollback
from tests.support.moved_tags import at, opened, point, published_files, resolved
from tests.support.published_images import RULES, ImagePublisher, key

LOOKALIKE = "edge-20261101-0123456789ab"
"""A branch, a day and a commit."""


def own_tag(image: Image, version: str) -> str:
    return immutable_tag(version, image.config.created, image.digest)


def act(name: str, mirror: Path, tag: str, maker: ImagePublisher) -> None:
    """Point a tag at the image of `latest`, 1.1."""
    wanted = maker.image("1.1").digest
    match name:
        case "promote":
            promote(at(mirror), tag, key(), RULES, maker.build_env)
        case "promote a digest":
            promote(at(mirror, f"@{wanted}"), tag, key(), RULES, maker.build_env)
        case "rollback":
            rollback(at(mirror, f":{tag}"), wanted, key(), RULES, maker.build_env)
        case "rollback to digits":
            rollback(at(mirror, f":{tag}"), wanted.short, key(), RULES, maker.build_env)
        case "copy":
            copy(at(mirror), at(mirror, f":{tag}"), key(), RULES, maker.build_env)
        case _:
            raise AssertionError(name)


ACTS = ("promote", "promote a digest", "rollback", "rollback to digits", "copy")


@pytest.mark.parametrize("name", ACTS)
def test_an_immutable_tag_is_not_moved_and_nothing_is_written(name: str, mirror: Path, maker: ImagePublisher) -> None:
    tag = own_tag(maker.image("1.0"), "1.0")
    before = published_files(mirror)
    with pytest.raises(PublicationRefused, match="is never moved") as refused:
        act(name, mirror, tag, maker)
    (problem,) = refused.value.problems
    assert problem.code == "tag-immutable" and "'stable'" in (problem.hint or "")
    assert published_files(mirror) == before


@pytest.mark.parametrize("name", ACTS)
def test_no_image_gets_a_tag_that_names_another_digest(name: str, mirror: Path, maker: ImagePublisher) -> None:
    before = published_files(mirror)
    with pytest.raises(PublicationRefused, match="whose digest begins with 0123456789ab") as refused:
        act(name, mirror, LOOKALIKE, maker)
    assert refused.value.code == "tag-immutable"
    assert published_files(mirror) == before


@pytest.mark.parametrize("name", ACTS)
def test_a_tag_that_only_looks_alike_is_a_channel_where_it_stands(
    name: str, mirror: Path, maker: ImagePublisher
) -> None:
    repository = opened(mirror, maker)
    point(mirror, LOOKALIKE, resolved(repository, "1.0"))  # pushed without relbuild
    act(name, mirror, LOOKALIKE, maker)
    assert resolved(repository, LOOKALIKE) == maker.image("1.1").digest


def test_an_images_own_tag_may_be_named(mirror: Path, maker: ImagePublisher) -> None:
    image = maker.image("1.1")
    assert promote(at(mirror), own_tag(image, "1.1"), key(), RULES, maker.build_env).moved is None


def test_a_tag_that_was_moved_by_an_older_version_is_told_and_set_right(mirror: Path, maker: ImagePublisher) -> None:
    repository, image = opened(mirror, maker), maker.image("1.0")
    tag = own_tag(image, "1.0")
    point(mirror, tag, resolved(repository, "1.1"))
    with pytest.raises(PublicationRefused) as refused:
        maker.publish(repository, image, tags=("1.0",))
    hint = refused.value.problems[0].hint or ""
    assert f"`relbuild promote {repository.url}@{image.digest} --to {tag}` sets it right" in hint
    assert "without relbuild" not in hint
    assert promote(at(mirror, f"@{image.digest}"), tag, key(), RULES, maker.build_env).moved is not None
    assert resolved(repository, tag) == image.digest
    maker.publish(repository, image, tags=("1.0",))


def test_a_tag_that_becomes_immutable_meanwhile_is_not_moved(
    mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another publisher sets it between the check and the move."""
    repository, image = opened(mirror, maker), maker.image("1.0")
    tag = own_tag(image, "1.0")
    (mirror / "repositories" / "small" / "_tags" / tag).unlink()
    point(mirror, tag, resolved(repository, "1.1"))
    real = DirectoryRepository.point

    def beaten(self: DirectoryRepository, to: str, cleared: Cleared, expected: Digest | None) -> None:
        if to == tag and resolved(repository, tag) != image.digest:
            point(mirror, tag, image.digest)
            raise TagConflict(to, image.digest)
        real(self, to, cleared, expected)

    maker.publish(repository, maker.image("1.2"), tags=("1.2",))
    monkeypatch.setattr(DirectoryRepository, "point", beaten)
    with pytest.raises(PublicationRefused, match="is never moved"):
        promote(at(mirror, ":1.2"), tag, key(), RULES, maker.build_env)
    assert resolved(repository, tag) == image.digest


def test_a_lookalike_is_carried_to_another_mirror(mirror: Path, maker: ImagePublisher, tmp_path: Path) -> None:
    repository = opened(mirror, maker)
    point(mirror, LOOKALIKE, resolved(repository, "1.0"))
    promote(at(mirror), LOOKALIKE, key(), RULES, maker.build_env)
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    (done,) = copy(at(mirror, f":{LOOKALIKE}"), target, key(), RULES, maker.build_env)
    assert LOOKALIKE in done.tags and (done.repository, done.former_name) == (target.url, "")
    with pytest.raises(PublicationRefused, match="whose digest begins with"):
        copy(at(mirror), parse_address(f"{target.url}:edge-20261101-ab0123456789"), key(), RULES, maker.build_env)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_tag_that_an_older_version_moved_does_not_stop_a_copy_of_the_rest(
    version: str, mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    """Whichever digest comes first."""
    repository, image = opened(mirror, maker), maker.image(version)
    other = maker.image("1.1" if version == "1.0" else "1.0")
    tag = own_tag(image, version)
    sign_moved(mirror, tag, other.digest, maker)
    there = parse_address(f"dir:{tmp_path / 'there'}/small")
    with pytest.raises(PublicationRefused) as refused:
        copy(at(mirror, ""), there, key(), RULES, maker.build_env)
    (problem,) = refused.value.problems
    assert problem.code == "tag-immutable" and problem.place == repository.url
    hint = problem.hint or ""
    assert f"`relbuild promote {repository.url}@{image.digest} --to {tag}` sets it right" in hint
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    for name in {*public_tags(repository), tag}:
        wanted = image.digest if name == tag else resolved(repository, name)
        assert copied.resolve(name) == wanted, name
    promote(at(mirror, f"@{image.digest}"), tag, key(), RULES, maker.build_env)
    assert len(copy(at(mirror, ""), there, key(), RULES, maker.build_env)) == 2


def test_what_the_target_refuses_does_not_stop_a_copy_of_the_rest(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    """The target has an immutable tag that the source points elsewhere, and whose image has no tag there any more."""
    image = maker.image("1.0")
    tag = own_tag(image, "1.0")
    there = parse_address(f"dir:{tmp_path / 'there'}/small")
    copy(at(mirror, f"@{image.digest}"), there, key(), RULES, maker.build_env)
    for name in ("1.0", "stable"):
        (mirror / "repositories" / "small" / "_tags" / name).unlink()
    sign_moved(mirror, tag, maker.image("1.1").digest, maker)
    with pytest.raises(PublicationRefused, match="is never moved") as refused:
        copy(at(mirror, ""), there, key(), RULES, maker.build_env)
    assert len(refused.value.problems) == 1
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    assert resolved(copied, tag) == image.digest
    assert {resolved(copied, name) for name in ("1.1", "latest")} == {maker.image("1.1").digest}


def public_tags(repository: Repository) -> list[str]:
    return [tag for tag in repository.tags() if not is_auxiliary(tag)]


def sign_moved(mirror: Path, tag: str, to: Digest, maker: ImagePublisher) -> None:
    """Move an immutable tag with a signed move, as older versions of relbuild did."""
    repository = opened(mirror, maker)
    before = resolved(repository, tag)
    said = Move(tag, before, to, int(maker.clock() * 1000), MoveCause.PROMOTE, "")
    until = int((maker.clock() + 86_400) * 1000)
    write_statement(repository, TagStatement(repository.identity, said, 1, None, until), key())
    point(mirror, tag, to)


def test_other_tags_are_asked_nothing(mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = opened(mirror, maker)
    monkeypatch.setattr(DirectoryRepository, "resolve", lambda *_: pytest.fail("asked"))
    for tag in ("stable", "1.0", "edge-20261101-0123456789a", "edge-2026110-0123456789ab", "20261101-0123456789ab"):
        refuse_immutable(repository, tag, maker.image("1.0").digest)


def test_a_copy_under_another_name_tells_the_former_one(mirror: Path, maker: ImagePublisher, tmp_path: Path) -> None:
    target = parse_address(f"dir:{tmp_path / 'there'}/prod")
    (done,) = copy(at(mirror), target, key(), RULES, maker.build_env)
    assert (done.repository, done.former_name) == (target.url, "small")


# --- what a rollback goes to


def test_a_rollback_takes_the_digits_that_a_publication_shows(mirror: Path, maker: ImagePublisher) -> None:
    first = maker.image("1.0").digest
    for digits in (first.short, first.hex[:7], first.hex[:40]):
        promote(at(mirror, ":1.1"), "latest", key(), RULES, maker.build_env)
        assert rollback(at(mirror), digits, key(), RULES, maker.build_env).digest == first


def test_digits_of_an_image_that_the_tag_never_had_are_looked_for_in_immutable_tags(
    mirror: Path, maker: ImagePublisher
) -> None:
    wanted = maker.image("1.1").digest
    assert rollback(at(mirror, ":stable"), wanted.short, key(), RULES, maker.build_env).digest == wanted


def test_digits_of_no_image_are_refused_with_the_tags_history(mirror: Path, maker: ImagePublisher) -> None:
    with pytest.raises(UsageError, match="begins with 000000000000") as refused:
        rollback(at(mirror), "0" * 12, key(), RULES, maker.build_env)
    assert refused.value.code == "digest-unknown"
    assert maker.image("1.0").digest.short in (refused.value.problems[0].hint or "")


def test_an_immutable_tag_has_nothing_to_go_back_to(mirror: Path, maker: ImagePublisher) -> None:
    with pytest.raises(UsageError, match="no earlier image") as refused:
        rollback(at(mirror, f":{own_tag(maker.image('1.0'), '1.0')}"), None, key(), RULES, maker.build_env)
    assert "name a tag that moves" in (refused.value.problems[0].hint or "")


@pytest.mark.parametrize("tag", ["", ":stable"])
def test_a_rollback_of_a_digest_is_refused_and_moves_no_tag(tag: str, mirror: Path, maker: ImagePublisher) -> None:
    before, digest = published_files(mirror), maker.image("1.0").digest
    for to in (None, digest):
        with pytest.raises(UsageError, match="a rollback moves a tag") as refused:
            rollback(at(mirror, f"{tag}@{digest}"), to, key(), RULES, maker.build_env)
        assert refused.value.code == "rollback-of-digest"
        assert refused.value.problems[0].hint == f"write dir:{mirror}/small{tag or ':latest'} --to {digest}"
    assert published_files(mirror) == before


def test_a_tag_that_became_immutable_since_the_check_gets_no_signed_move(
    mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = published_files(mirror)
    monkeypatch.setattr(move, "refuse_immutable", lambda *_: None)
    with pytest.raises(PublicationRefused, match="is never moved"):
        promote(at(mirror), own_tag(maker.image("1.0"), "1.0"), key(), RULES, maker.build_env)
    assert published_files(mirror) == before
