"""A publisher's key is changed: what the former key signed is told as that, believed by none who has only the new one,
and signed anew by who is given both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import list_statements, write_statement
from pipeline.mirror.verification import Verified
from pipeline.model.publication import Move, MoveCause, PastMove, TagStatement
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.release import history, promote, rollback, verify_reference
from pipeline.release.current_images import tag_signer
from pipeline.release.renew import RenewalResult, renew
from tests.support.changed_keys import BOTH, NEW, OLD, STRANGER, published_with_old_key
from tests.support.moved_tags import DAY, code_of, opened, resolved
from tests.support.published_images import RULES, ImagePublisher

TAGS = ("edge", "stable")
"""Tags that only the old key moved."""


@pytest.fixture(params=["directory", "registry"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, maker: ImagePublisher) -> Iterator[Repository]:
    """1.0 and 1.1 by the old key, `stable` at 1.1; then 1.1 published again with the new key."""
    with published_with_old_key(request.param, tmp_path, maker) as found:
        maker.publish(found, maker.image("1.1"), tags=("latest",), signer=NEW)
        yield found


def verified(repository: Repository, tag: str, trusted: VerifyingKey, maker: ImagePublisher) -> Verified:
    return verify_reference(parse_address(f"{repository.url}:{tag}"), trusted, maker.build_env)


def refused(repository: Repository, tag: str, trusted: VerifyingKey, maker: ImagePublisher) -> RelbuildError:
    with pytest.raises(RelbuildError) as caught:
        verified(repository, tag, trusted, maker)
    return caught.value


def told(past: tuple[PastMove, ...]) -> list[tuple[Digest, bool, Digest | None]]:
    return [(one.move.after, one.happened, one.other_key) for one in past]


def night(repository: Repository, maker: ImagePublisher, **own: Digest) -> RenewalResult:
    return renew(repository, NEW, MirrorRules(), maker.build_env, own)


def test_history_tells_the_moves_that_were_made_each_once(repository: Repository, maker: ImagePublisher) -> None:
    first, second = maker.image("1.0").digest, maker.image("1.1").digest
    assert told(read_history(repository, "latest")) == [(first, True, None), (second, True, None)]
    maker.publish(repository, maker.image("1.2"), signer=NEW)
    third = maker.image("1.2").digest
    assert told(read_history(repository, "latest")) == [
        (first, True, None), (second, True, None), (third, True, None)
    ]  # fmt: skip


def test_history_with_the_new_key_tells_by_which_key_it_was_moved_before(
    repository: Repository, maker: ImagePublisher
) -> None:
    maker.publish(repository, maker.image("1.2"), signer=NEW)
    first, second, third = (maker.image(version).digest for version in ("1.0", "1.1", "1.2"))
    old = OLD.public.fingerprint
    address = parse_address(f"{repository.url}:latest")
    steps = history(address, maker.build_env, NEW.public)
    assert told(tuple(step.past for step in steps)) == [(first, True, old), (second, True, old), (third, True, None)]
    steps = history(address, maker.build_env, BOTH)
    assert told(tuple(step.past for step in steps)) == [(first, True, None), (second, True, None), (third, True, None)]
    # What decides anything takes none of it.
    assert told(read_history(repository, "latest", (), NEW.public)) == [(third, True, None)]


def test_a_forged_predecessor_is_never_told_as_verified(tmp_path: Path, maker: ImagePublisher) -> None:
    """Who can write to the mirror, and cannot sign, puts a move there that names the old key."""
    repository = opened(tmp_path / "mirror", maker)
    maker.publish(repository, maker.image("1.0"), signer=OLD)
    forged = forge(repository, Digest.of(b"evil"))
    maker.publish(repository, maker.image("1.1"), signer=NEW)
    steps = history(parse_address(f"{repository.url}:latest"), maker.build_env, NEW.public)
    assert [step.past.other_key for step in steps if step.past.move.after != maker.image("1.1").digest]
    assert all(step.past.other_key for step in steps if step.past.move.after != maker.image("1.1").digest)
    trusted = history(parse_address(f"{repository.url}:latest"), maker.build_env, BOTH)
    assert forged.move.after not in {step.past.move.after for step in trusted if step.past.other_key is None}


def forge(repository: Repository, target: Digest) -> TagStatement:
    """Put a move of `latest` there, signed by a stranger, newer than all."""
    newest = list_statements(repository, repository.identity, "latest")[0].statement
    move = Move("latest", newest.move.after, target, newest.move.at, MoveCause.PUBLISH)
    said = replace(newest, move=move, number=newest.number + 5)
    write_statement(repository, said, STRANGER)
    return said


def test_who_has_only_the_new_key_believes_no_channel_that_only_the_old_one_moved(
    repository: Repository, maker: ImagePublisher
) -> None:
    error = refused(repository, "stable", NEW.public, maker)
    assert error.code == "tag-other-key" and OLD.public.fingerprint.short in str(error)
    assert verified(repository, "stable", BOTH, maker).tag is not None
    assert verified(repository, "latest", NEW.public, maker).tag is not None


def test_who_has_only_the_old_key_is_told_of_another_and_of_no_rollback(
    repository: Repository, maker: ImagePublisher
) -> None:
    verified(repository, "latest", NEW.public, maker)  # this store has seen the new key's number
    verified(repository, "latest", OLD.public, maker)  # it is where the old key moved it
    promote(parse_address(f"{repository.url}:latest"), "new", NEW, RULES, maker.build_env)
    error = refused(repository, "new", OLD.public, maker)
    assert error.code == "tag-other-key" and NEW.public.fingerprint.short in str(error)
    assert verified(repository, "latest", BOTH, maker).tag is not None


def test_a_mirror_that_was_set_back_is_still_told_as_set_back(tmp_path: Path, maker: ImagePublisher) -> None:
    """Also where the key was changed since, to whoever believes the new one."""
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"), signer=OLD)
    shutil.copytree(mirror, tmp_path / "first", symlinks=True)
    maker.publish(repository, maker.image("1.0"), signer=NEW)
    shutil.copytree(mirror, tmp_path / "second", symlinks=True)
    maker.publish(repository, maker.image("1.1"), signer=NEW)
    verified(repository, "latest", NEW.public, maker)
    for saved, trusted in (("first", BOTH), ("second", NEW.public), ("second", BOTH)):
        shutil.rmtree(mirror)
        shutil.copytree(tmp_path / saved, mirror, symlinks=True)
        assert refused(repository, "latest", trusted, maker).code == "moves-rolled-back"


def test_who_has_stolen_the_former_key_cannot_have_the_new_ones_moves_refused(
    repository: Repository, maker: ImagePublisher
) -> None:
    """They sign the last number that there is; a store that verified it with both keys sees it."""
    newest = list_statements(repository, repository.identity, "latest")[0].statement
    write_statement(repository, replace(newest, number=10**12), OLD)
    verified(repository, "latest", BOTH, maker)
    verified(repository, "latest", OLD.public, maker)
    assert verified(repository, "latest", NEW.public, maker).tag is not None
    done = maker.publish(repository, maker.image("1.2"), tags=("latest",), signer=NEW)
    assert [move.tag for move in done.moved] == ["latest"]
    assert verified(repository, "latest", NEW.public, maker).held.digest == maker.image("1.2").digest
    signer = tag_signer(NEW, MirrorRules(), maker.build_env, (OLD.public,))
    announced = SignedTag(repository, repository.identity, "latest", signer)
    move = Move("latest", maker.image("1.2").digest, maker.image("1.1").digest, 1, MoveCause.PROMOTE)
    announced.announce(move)
    assert verified(repository, "latest", NEW.public, maker).held.digest == maker.image("1.2").digest
    write_statement(repository, replace(newest, number=10**12 - 1), NEW)
    own = replace(announced, signer=tag_signer(NEW, MirrorRules(), maker.build_env))
    assert code_of(lambda: own.announce(move)) == "move-numbers-used-up"


def test_a_night_does_not_renew_what_was_set_back(tmp_path: Path, maker: ImagePublisher) -> None:
    """A higher number than any that was seen would have the older state believed."""
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"), tags=("latest",), signer=NEW)
    shutil.copytree(mirror, tmp_path / "first", symlinks=True)
    maker.publish(repository, maker.image("1.1"), tags=("latest",), signer=NEW)
    shutil.rmtree(mirror)
    shutil.copytree(tmp_path / "first", mirror, symlinks=True)
    maker.clock.now += 5 * DAY
    assert night(opened(mirror, maker), maker).left == ("latest",)
    assert refused(opened(mirror, maker), "latest", NEW.public, maker).code == "moves-rolled-back"
    done = maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("latest",), signer=NEW)
    assert done.moved and verified(opened(mirror, maker), "latest", NEW.public, maker).tag is not None


def test_a_claim_that_leads_back_to_an_own_move_is_no_predecessor(tmp_path: Path, maker: ImagePublisher) -> None:
    """The mirror withholds the own statements once, and shows a stranger's that names an old one of them."""
    repository = opened(tmp_path / "mirror", maker)
    for version in ("1.0", "1.1"):
        maker.publish(repository, maker.image(version), tags=("latest",), signer=NEW)
    moves = [one for one in list_statements(repository, repository.identity, "latest") if not one.statement.renews]
    oldest = moves[-1]
    renewal = Move("latest", None, oldest.statement.move.after, oldest.statement.move.at, MoveCause.RENEW, "1.0")
    stranger = write_statement(
        repository, TagStatement(repository.identity, renewal, 50, oldest.record, oldest.statement.until), STRANGER
    )
    listed = (stranger, oldest)
    signed_tag = SignedTag(repository, repository.identity, "latest", tag_signer(NEW, MirrorRules(), maker.build_env))
    assert signed_tag._predecessor(listed, (), resolved(repository, "latest")) is None
    others = SignedTag(repository, repository.identity, "latest", tag_signer(OLD, MirrorRules(), maker.build_env))
    assert others._predecessor(listed, (), resolved(repository, "latest")) == oldest.record


def test_what_a_stranger_signs_changes_words_and_never_a_verdict(tmp_path: Path, maker: ImagePublisher) -> None:
    repository = opened(tmp_path / "mirror", maker)
    maker.publish(repository, maker.image("1.0"), tags=("1.0", "latest"), signer=NEW)
    forge(repository, maker.image("1.0").digest)
    assert verified(repository, "latest", NEW.public, maker).tag is not None
    assert verified(repository, "latest", BOTH, maker).tag is not None
    assert refused(repository, "latest", OLD.public, maker).code == "signature-wrong-key"


def test_a_former_key_that_is_no_longer_given_counts_no_more(repository: Repository, maker: ImagePublisher) -> None:
    """Of a stolen key: nothing that was verified with it is remembered as the new key's."""
    verified(repository, "stable", BOTH, maker)
    promote(parse_address(f"{repository.url}@{maker.image('1.1').digest}"), "edge", OLD, RULES, maker.build_env)
    verified(repository, "edge", BOTH, maker)
    for tag in TAGS:
        assert refused(repository, tag, NEW.public, maker).code == "tag-other-key"
    digest = maker.image("1.1").digest
    for former in ((OLD.public,), ()):
        signer = tag_signer(NEW, MirrorRules(), maker.build_env, former)
        signed_tags = [SignedTag(repository, repository.identity, tag, signer) for tag in TAGS]
        believed = [one.believed_until(digest, one.read()) for one in signed_tags]
        assert [until is not None for until in believed] == [bool(former)] * 2
    done = night(repository, maker)
    assert done.left == TAGS and set(done.other_keys) == set(TAGS)


def test_a_night_with_a_new_key_names_the_tags_that_only_another_key_signed(
    repository: Repository, maker: ImagePublisher
) -> None:
    done = night(repository, maker, latest=maker.image("1.1").digest)
    assert done.left == ("stable",) and done.other_keys == {"stable": OLD.public.fingerprint}


def test_promoting_with_both_keys_signs_what_is_there_anew(repository: Repository, maker: ImagePublisher) -> None:
    address = parse_address(f"{repository.url}:stable")
    assert code_of(lambda: promote(address, "stable", NEW, RULES, maker.build_env)) == "tag-other-key"
    done = promote(address, "stable", NEW, RULES, maker.build_env, former=(OLD.public,))
    assert done.moved is None
    assert verified(repository, "stable", NEW.public, maker).tag is not None
    assert told(read_history(repository, "stable")) == [(maker.image("1.1").digest, True, None)]
    before = list_statements(repository, repository.identity, "stable")
    promote(address, "stable", NEW, RULES, maker.build_env, former=(OLD.public,))
    assert list_statements(repository, repository.identity, "stable") == before
    maker.clock.now += 5 * DAY
    assert "stable" in night(repository, maker).tags


def test_rolling_back_to_what_the_old_key_signed_wants_it_and_signs_the_image_anew(
    repository: Repository, maker: ImagePublisher
) -> None:
    address, first = parse_address(f"{repository.url}:latest"), maker.image("1.0").digest
    with pytest.raises(RelbuildError) as caught:
        rollback(address, None, NEW, RULES, maker.build_env)
    assert caught.value.code == "history-empty" and OLD.public.fingerprint.short in str(caught.value)
    assert code_of(lambda: rollback(address, first, NEW, RULES, maker.build_env)) == "signature-wrong-key"
    assert resolved(repository, "latest") == maker.image("1.1").digest
    assert rollback(address, None, NEW, RULES, maker.build_env, former=(OLD.public,)).digest == first
    assert verified(repository, "latest", NEW.public, maker).held.digest == first


def test_an_index_is_signed_anew_with_all_its_images(tmp_path: Path, maker: ImagePublisher) -> None:
    repository = opened(tmp_path / "mirror", maker)
    pair = (maker.image("1.0"), maker.image("1.0", architecture="arm64"))
    maker.publish(repository, *pair, signer=OLD)
    address = parse_address(f"{repository.url}:latest")
    promote(address, "latest", NEW, RULES, maker.build_env, former=(OLD.public,))
    found = verified(repository, "latest", NEW.public, maker)
    assert len(found.attested) == 3
    held = found.held.digest  # what the old key signed stays
    verify_reference(parse_address(f"{repository.url}@{held}"), OLD.public, maker.build_env)


def test_what_a_stranger_signed_is_not_signed_anew(tmp_path: Path, maker: ImagePublisher) -> None:
    repository = opened(tmp_path / "mirror", maker)
    maker.publish(repository, maker.image("1.0"), signer=STRANGER)
    address = parse_address(f"{repository.url}:latest")
    code = code_of(lambda: promote(address, "stable", NEW, RULES, maker.build_env, former=(OLD.public,)))
    assert code == "signature-wrong-key"


def test_a_publisher_with_the_new_key_that_is_killed_leaves_a_tag_that_verifies(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and not made: the tag is where the new key confirmed it, whoever moved it there."""
    point = type(repository).point

    def killed(self: Repository, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        if tag == "latest":
            raise KeyboardInterrupt
        point(self, tag, cleared, expected)

    with monkeypatch.context() as patch:
        patch.setattr(type(repository), "point", killed)
        with pytest.raises(KeyboardInterrupt):
            maker.publish(repository, maker.image("1.2"), tags=("latest",), signer=NEW)
    assert (
        list_statements(repository, repository.identity, "latest")[0].statement.move.after == maker.image("1.2").digest
    )
    assert verified(repository, "latest", NEW.public, maker).held.digest == maker.image("1.1").digest
    assert maker.publish(repository, maker.image("1.2"), tags=("latest",), signer=NEW).moved
    assert verified(repository, "latest", NEW.public, maker).held.digest == maker.image("1.2").digest
