"""Signed moves of a mirror that is copied to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.release import copy, verify_reference
from tests.support.moved_tags import (
    DAY,
    HOST,
    at,
    code_of,
    opened,
    published_files,
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
