"""Lists of signed moves stay short and out of the way, also on mirrors that are older than they are."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.mirror.backends.directory import mirror_paths
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.directory_prune import prune_directory
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import (
    STATEMENTS_KEPT,
    TagSigner,
    list_statements,
    write_statement,
)
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.model.tag_chain import AT_ONCE
from pipeline.release import promote, rollback, verify_reference
from tests.support.moved_tags import (
    DAY,
    at,
    code_of,
    opened,
    published_files,
    replay,
    resolved,
    unsign,
)
from tests.support.old_records import write_down
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry


def test_nothing_stands_in_the_list_of_tags_but_what_is_pulled_and_one_list_for_each_tag(
    mirror: Path, maker: ImagePublisher
) -> None:
    repository = opened(mirror, maker)
    assert not [tag for tag in repository.tags() if tag.startswith("move.")]
    pulled = [tag for tag in repository.tags() if not is_auxiliary(tag)]
    assert {"1.0", "1.1", "latest", "stable"} == {tag for tag in pulled if "-" not in tag}
    with fake_registry() as registry, open_mirror(registry) as opened_registry:
        app = opened_registry.repository("app")
        maker.publish(app, maker.image("1.0", "app"))
        assert all(not is_auxiliary(tag) or tag.endswith(".sig") for tag in app.tags())


def test_a_publication_lists_tags_that_a_killed_one_moved_and_did_not_list(mirror: Path, maker: ImagePublisher) -> None:
    """By whoever touches that tag next, also where it points there already."""
    listed = mirror / "repositories" / "small" / "_tags.json"
    whole = listed.read_bytes()
    listed.write_bytes(whole.replace(b'"latest",', b""))
    assert listed.read_bytes() != whole
    maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("1.1", "latest"))
    assert listed.read_bytes() == whole


def test_a_publication_writes_the_list_of_tags_once_for_all_that_move(
    mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    replace_file = mirror_paths.replace_file

    def replacing(data: bytes, target: Path, drafts: Path, *, sync: bool = True) -> None:
        written.append(target.name)
        replace_file(data, target, drafts, sync=sync)

    monkeypatch.setattr(mirror_paths, "replace_file", replacing)
    maker.publish(opened(mirror, maker), maker.image("1.2"), tags=("1.2.0", "1.2", "1", "latest"))
    # The signature, the attestations, the immutable tag, and four tags with their statements.
    assert written.count("_tags.json") == 4


def test_a_list_of_tags_that_cannot_be_written_at_the_end_is_an_error_of_the_mirror(
    mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(data: bytes, target: Path, drafts: Path, *, sync: bool = True) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))

    repository = opened(mirror, maker)
    monkeypatch.setattr(mirror_paths, "replace_file", failing)
    (mirror / "repositories" / "small" / "_tags.json").unlink()
    with pytest.raises(EnvironmentLacking) as caught, repository.moving():
        pass
    assert caught.value.code == "mirror-unreachable"


def test_publishing_and_promoting_the_same_again_touches_nothing(mirror: Path, maker: ImagePublisher) -> None:
    before = published_files(mirror)
    maker.clock.now += 3600
    maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("1.1", "latest"))
    promote(at(mirror, ":stable"), "stable", key(), RULES, maker.build_env)
    assert published_files(mirror) == before


def test_renewals_replace_one_another_and_are_no_history(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    moves = len(read_history(repository, "latest"))
    numbers = []
    for _ in range(8):
        maker.clock.now += 5 * DAY
        maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
        found = verify_reference(at(mirror), key().public, maker.build_env)
        assert found.tag is not None
        numbers.append(found.tag.number)
    assert numbers == sorted(set(numbers))
    listed = list_statements(repository, repository.identity, "latest")
    assert len([one for one in listed if one.statement.renews]) == 1
    assert len(read_history(repository, "latest")) == moves


def test_a_renewal_wants_the_tag_to_stand_where_it_says(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    replay(mirror, maker)
    signed_tag = SignedTag(repository, repository.identity, "latest", TagSigner(key(), maker.clock))
    before = list_statements(repository, repository.identity, "latest")
    assert not signed_tag.confirm(maker.image("1.1").digest, "1.1", MoveCause.PUBLISH).signed
    assert list_statements(repository, repository.identity, "latest") == before


def test_a_list_of_thousands_of_moves_is_cut_at_its_old_end(
    tmp_path: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STATEMENTS_KEPT * 1000 < 4 << 20
    monkeypatch.setattr("pipeline.mirror.tag_statements.STATEMENTS_KEPT", 5)
    repository = opened(tmp_path / "mirror", maker)
    for number in range(12):
        maker.clock.now += AT_ONCE / 1000
        maker.publish(repository, maker.image(f"1.{number % 3}"))
    listed = list_statements(repository, repository.identity, "latest")
    assert len([one for one in listed if not one.statement.renews]) <= 6
    past = read_history(repository, "latest")
    assert 5 <= len(past) <= 6 and all(one.happened for one in past)
    verify_reference(at(tmp_path / "mirror"), key().public, maker.build_env)


def test_what_is_young_or_another_signed_is_not_tidied_away(mirror: Path, maker: ImagePublisher) -> None:
    """Whoever signed it just now looks whether it is listed, and would write it again and again."""
    repository = opened(mirror, maker)
    said = list_statements(repository, repository.identity, "latest")[0].statement
    assert said.renews
    others = write_statement(repository, replace(said, number=1), key(1))
    maker.publish(repository, maker.image("1.2"))
    renewals = [one for one in list_statements(repository, repository.identity, "latest") if one.statement.renews]
    assert len(renewals) == 3
    maker.clock.now += 10 * DAY
    maker.publish(repository, maker.image("1.2"))
    renewals = [one for one in list_statements(repository, repository.identity, "latest") if one.statement.renews]
    assert len(renewals) == 2 and others in renewals


def test_pruning_leaves_what_is_signed_of_tags(mirror: Path, maker: ImagePublisher) -> None:
    root = open_directory(mirror, create=False, clock=maker.clock)
    rules = MirrorRules(retention=(RetentionRule(tags="1.0*", keep=0),), grace=0)
    prune_directory(root, rules, int(maker.clock() + 1000 * DAY))
    for tag in ("latest", "stable"):
        verify_reference(at(mirror, f":{tag}"), key().public, maker.build_env)
    assert len(read_history(opened(mirror, maker), "latest")) == 2


def test_a_mirror_with_old_records_goes_on_with_signed_moves(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"))
    old = maker.image("1.0").digest
    unsign(mirror, maker)
    write_down(repository, Move("latest", None, old, 1_700_000_000_000, MoveCause.PUBLISH, "1.0"))
    assert code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env)) == "tag-unsigned"
    maker.publish(repository, maker.image("1.1"))
    verify_reference(at(mirror), key().public, maker.build_env)
    past = read_history(repository, "latest")
    assert [(one.move.version, one.happened, one.signed) for one in past] == [("1.0", True, False), ("1.1", True, True)]
    assert rollback(at(mirror), None, key(), RULES, maker.build_env).digest == old
    assert not [tag for tag in repository.tags() if tag.startswith("move.") and tag.count("1.1")]


def test_a_tag_that_nobody_signed_is_signed_by_promoting_what_it_points_to(mirror: Path, maker: ImagePublisher) -> None:
    unsign(mirror, maker)
    digest = resolved(opened(mirror, maker), "latest")
    promote(at(mirror, f"@{digest}"), "latest", key(), RULES, maker.build_env)
    verify_reference(at(mirror), key().public, maker.build_env)
