"""Signed moves of a mirror that is copied to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UsageError, VerificationError
from pipeline.mirror import image_copy
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.image_tags import names_digest
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.mirror.tag_statements import list_statements, signed_statements, write_statement
from pipeline.oci import bundle_layer
from pipeline.release import copy, verify_reference
from tests.support.moved_tags import (
    DAY,
    HOST,
    at,
    code_of,
    opened,
    point,
    published_files,
    resolved,
)
from tests.support.published_images import RULES, ImagePublisher, key


def test_a_copy_with_the_private_key_is_signed_under_its_own_name(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    opened_there = open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example")
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    copy(at(mirror, ""), target, key(), RULES, maker.build_env)
    for tag in ("latest", "stable", "1.0"):
        found = verify_reference(parse_address(f"{target.url}:{tag}"), key().public, maker.build_env)
        assert found.identities == ("inside.example/small",)
    before = published_files(tmp_path / "there")
    copy(at(mirror, ""), target, key(), RULES, maker.build_env)
    assert published_files(tmp_path / "there") == before
    assert opened_there.repository("small").resolve("latest") == maker.image("1.1").digest


def test_a_copy_with_the_public_key_carries_what_was_signed_and_is_a_mirror(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example")
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    identity = ExpectedIdentity(f"{HOST}/small")
    copy(at(mirror), target, key().public, RULES, maker.build_env)
    there = parse_address(f"{target.url}:latest")
    assert code_of(lambda: verify_reference(there, key().public, maker.build_env)) == "identity-mismatch"
    assert verify_reference(there, key().public, maker.build_env, identity=identity).tag is not None
    maker.publish(opened(mirror, maker), maker.image("1.2"))
    copy(at(mirror), target, key().public, RULES, maker.build_env)
    verify_reference(there, key().public, maker.build_env, identity=identity)
    assert (
        code_of(lambda: copy(at(mirror), parse_address(f"{target.url}:edge"), key().public, RULES, maker.build_env))
        == "key-not-private"
    )


def test_what_is_carried_in_a_layout_is_believed_by_its_signed_moves(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    disk = parse_address(f"oci:{tmp_path / 'disk'}")
    copy(at(mirror, ""), disk, key().public, RULES, maker.build_env)
    latest = parse_address(f"{disk.url}:latest")
    assert verify_reference(latest, key().public, maker.build_env).tag is not None
    target = parse_address(f"dir:{tmp_path / 'inside'}/small")
    copy(disk, target, key().public, RULES, maker.build_env)
    identity = ExpectedIdentity(f"{HOST}/small")
    verify_reference(parse_address(f"{target.url}:stable"), key().public, maker.build_env, identity=identity)
    maker.clock.now += 15 * DAY
    assert code_of(lambda: verify_reference(latest, key().public, maker.build_env)) == "tag-frozen"


def test_a_target_without_a_name_is_named_and_one_that_works_is_suggested(mirror: Path, maker: ImagePublisher) -> None:
    target = mirror.parent / "mirror2"
    for folder in (None, target):
        if folder is not None:
            folder.mkdir()
        with pytest.raises(UsageError) as refused:
            copy(at(mirror), parse_address(f"dir:{target}"), key(), RULES, maker.build_env)
        (problem,) = refused.value.problems
        assert (problem.code, problem.place) == ("not-a-mirror", f"dir:{target}")
        assert f"'{mirror.parent}', which is neither empty nor a mirror" in problem.message
        assert str(problem.hint).startswith(f"write dir:{target}/small: ")
    assert list(target.iterdir()) == []
    assert copy(at(mirror), parse_address(f"dir:{target}/small"), key(), RULES, maker.build_env)
    (mirror.parent / "full" / "of").mkdir(parents=True)
    with pytest.raises(UsageError, match="neither empty nor a mirror") as refused:
        copy(at(mirror), parse_address(f"dir:{mirror.parent}/full"), key(), RULES, maker.build_env)
    assert str(refused.value.problems[0].hint).startswith("choose a new directory: ")


def test_a_mirrors_own_address_is_told_with_what_to_add(mirror: Path) -> None:
    with pytest.raises(UsageError, match="is not the address of a repository") as refused:
        DIRECTORY.locate(parse_address(f"dir:{mirror}"), create=False)
    assert refused.value.problems[0].hint == f"write dir:{mirror}/NAME"


@pytest.mark.parametrize("private", [True, False], ids=["private key", "public key"])
def test_a_tag_that_does_not_verify_stops_no_copy_of_the_others(
    mirror: Path, maker: ImagePublisher, tmp_path: Path, private: bool
) -> None:
    """Planted tags by who cannot sign: beside others of the image, and the only one of an image that nobody signed."""
    first, second = maker.image("1.0").digest, maker.image("1.1").digest
    stranger = maker.publish(opened(mirror, maker), maker.image("6.6"), tags=("evil",), signer=key(7)).digest
    point(mirror, "aaa", min(first, second))
    point(mirror, "zzz", max(first, second))
    there = parse_address(f"dir:{tmp_path / 'there'}/small")
    signer = key() if private else key().public
    with pytest.raises(VerificationError) as caught:
        copy(at(mirror, ""), there, signer, RULES, maker.build_env)
    assert sorted(problem.code for problem in caught.value.problems) == [
        "signature-wrong-key", "tag-unsigned", "tag-unsigned"
    ]  # fmt: skip
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    for tag in ("1.0", "1.1", "latest", "stable"):
        assert resolved(copied, tag) == resolved(opened(mirror, maker), tag)
    assert not {"aaa", "zzz", "evil"} & set(copied.tags()) and copied.manifest(stranger) is None
    identity = ExpectedIdentity("" if private else f"{HOST}/small")
    verify_reference(parse_address(f"{there.url}:stable"), key().public, maker.build_env, identity=identity)


def test_an_image_whose_tags_are_all_refused_is_not_copied(mirror: Path, maker: ImagePublisher, tmp_path: Path) -> None:
    maker.clock.now += 20 * DAY
    opened(mirror, maker)
    maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("1.1", "latest"))
    for tag in opened(mirror, maker).tags():
        if names_digest(tag, maker.image("1.0").digest):
            (mirror / "repositories" / "small" / "_tags" / tag).unlink()
    with pytest.raises(VerificationError) as caught:
        copy(at(mirror, ""), parse_address(f"dir:{tmp_path / 'there'}/small"), key(), RULES, maker.build_env)
    assert {problem.code for problem in caught.value.problems} == {"tag-frozen"}
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    assert copied.manifest(maker.image("1.0").digest) is None and copied.resolve("latest") is not None


def test_what_others_added_to_a_tag_ends_no_copy_and_is_not_all_copied(
    mirror: Path, maker: ImagePublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened(mirror, maker)
    newest = list_statements(repository, repository.identity, "latest")[0].statement
    for number in range(1, 5):
        planted = write_statement(repository, replace(newest, number=number, until=newest.until + number), key(7))
    manifest = repository.manifest(planted.record)
    assert manifest is not None
    (mirror / "blobs" / "sha256" / bundle_layer(manifest).digest.hex).unlink()
    monkeypatch.setattr(image_copy, "CLAIMS_COPIED", 3)
    copy(at(mirror, ":latest"), parse_address(f"dir:{tmp_path / 'there'}/small"), key().public, RULES, maker.build_env)
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    said = list_statements(copied, repository.identity, "latest")
    own = signed_statements(repository, repository.identity, "latest", key().public)
    assert {one.record for one in own} <= {one.record for one in said} and len(said) == len(own) + 2


def test_an_own_statement_that_is_lost_is_copied_all_the_same(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    """It is made again from what is listed."""
    repository = opened(mirror, maker)
    newest = list_statements(repository, repository.identity, "latest")[0]
    manifest = repository.manifest(newest.record)
    assert manifest is not None
    (mirror / "blobs" / "sha256" / bundle_layer(manifest).digest.hex).unlink()
    there = parse_address(f"dir:{tmp_path / 'there'}/small")
    copy(at(mirror, ":latest"), there, key().public, RULES, maker.build_env)
    assert (tmp_path / "there" / "blobs" / "sha256" / bundle_layer(manifest).digest.hex).exists()
