"""A mirror that withholds what is signed of a tag while an honest publisher signs, or adds what it likes: it decides
neither what is believed nor where a rollback goes, and once it does so no more all is as before.

Who writes to the mirror here has no key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.tag_statements import (
    STATEMENT_NUMBER_LIMIT,
    STATEMENT_SIZE_LIMIT,
    STATEMENTS_EXAMINED,
    anchor_manifest,
    list_statements,
    write_statement,
)
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules
from pipeline.model.tag_chain import NEAR
from pipeline.oci import bundle_layer, make_referrer, media_types
from pipeline.release import history, promote, rollback, verify_reference
from pipeline.release.renew import renew
from tests.support.moved_tags import DAY, HOST, at, code_of, opened, point, unsign
from tests.support.published_images import RULES, ImagePublisher
from tests.support.withheld_moves import (
    NEW,
    OLD,
    announced,
    claim,
    listed,
    noted,
    publish,
    show_all,
    show_only,
    signed_meanwhile,
    signed_tag,
    unsigned_in_list,
    verdict,
)


def test_no_number_of_foreign_statements_hides_the_own_ones(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    repository = opened(mirror, maker)
    (own,) = list_statements(repository, repository.identity, "latest")
    for number in range(STATEMENTS_EXAMINED + 1):
        claim(repository, own.statement.move, STATEMENT_NUMBER_LIMIT, None, own.statement.until + number)
    assert verdict(mirror, maker) == "1.0"
    publish(mirror, maker, "1.1")
    assert verdict(mirror, maker) == "1.1"
    told = [one.past.move.after for one in history(at(mirror), maker.build_env, NEW.public)]
    assert told == [maker.image("1.0").digest, maker.image("1.1").digest]


def test_statements_of_earlier_versions_are_read_and_so_many_of_them_alone(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    """They are listed without a signature."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    show_only(mirror, maker, unsigned_in_list(listed(mirror, maker)))
    assert verdict(mirror, maker) == "1.1"
    repository = opened(mirror, maker)
    newest, *_ = list_statements(repository, repository.identity, "latest")
    assert not newest.signature
    for number in range(STATEMENTS_EXAMINED):
        claim(repository, newest.statement.move, 1000 + number, None)
    show_only(mirror, maker, unsigned_in_list(listed(mirror, maker)))
    assert verdict(mirror, maker) == "tag-other-key"
    publish(mirror, maker, "1.2")
    assert verdict(mirror, maker) == "1.2"


@pytest.mark.parametrize("change", ["number", "until", "to"])
def test_a_list_that_says_something_else_than_was_signed_is_not_believed(
    change: str, tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    other = {"number": "999", "until": "9999999999999", "to": str(Digest.of(b""))}[change]
    show_only(mirror, maker, [noted(one, **{change: other}) for one in listed(mirror, maker)])
    assert verdict(mirror, maker, store="fresh") == "tag-unsigned"


def test_a_rollback_does_not_go_where_another_key_says_that_the_tag_was(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1", "1.2")
    unsign(mirror, maker)
    repository, evil = opened(mirror, maker), maker.image("1.0").digest
    first = claim(repository, Move("latest", None, evil, 1, MoveCause.PUBLISH, "1.0"), 50, None)
    claim(repository, Move("latest", None, evil, 1, MoveCause.RENEW, "1.0"), 51, first.record)
    publish(mirror, maker, "1.2")
    assert verdict(mirror, maker) == "1.2"
    assert code_of(lambda: rollback(at(mirror), None, NEW, RULES, maker.build_env)) == "history-empty"


@pytest.mark.parametrize("last", ["1.0", "1.1"])
def test_a_rollback_does_not_go_where_a_part_of_the_history_says(
    last: str, tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    part = listed(mirror, maker)
    publish(mirror, maker, "1.1")
    part = listed(mirror, maker) if last == "1.1" else part
    publish(mirror, maker, "1.2", "1.3")
    show_only(mirror, maker, part)
    publish(mirror, maker, "1.3")
    renewal, move, *_ = list_statements(opened(mirror, maker), f"{HOST}/small", "latest")
    assert renewal.statement.renews and renewal.statement.previous == move.record
    assert (move.statement.previous, move.statement.move.before) == (None, None)
    assert code_of(lambda: rollback(at(mirror), None, NEW, RULES, maker.build_env)) == "history-empty"


def test_what_strangers_renewed_is_not_signed_as_where_a_tag_was(tmp_path: Path, maker: ImagePublisher) -> None:
    """By who has seen nothing: a tag that was set without a signature, and claims about it."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    unsign(mirror, maker)
    repository, evil = opened(mirror, maker), Digest.of(b"evil")
    first = claim(repository, Move("latest", None, evil, 1, MoveCause.PUBLISH, "0.9"), 50, None)
    claim(repository, Move("latest", None, evil, 1, MoveCause.RENEW, "0.9"), 51, first.record)
    other = ImagePublisher.at(tmp_path / "other")
    other.clock.now = maker.clock.now
    publish(mirror, other, "1.0")
    statements = [one.statement for one in list_statements(repository, repository.identity, "latest")]
    assert statements[0].number > 51
    assert all(one.move.before is None for one in statements)


def test_what_is_signed_while_own_moves_are_withheld_brings_none_of_them_back(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    """After a change of the key: the first move by the new one names the old key's as its predecessor."""
    mirror = tmp_path / "mirror"
    maker.publish(opened(mirror, maker), maker.image("1.0"), tags=("latest",), signer=OLD)
    before = listed(mirror, maker)
    publish(mirror, maker, "1.1", "1.2", "1.3")
    signed_meanwhile(mirror, maker, before, before[0].descriptor.digest, "1.3")
    assert verdict(mirror, maker) == "1.3"
    point(mirror, "latest", maker.image("1.1").digest)
    assert verdict(mirror, maker) == "tag-replayed"
    assert verdict(mirror, maker, store="fresh") == "tag-replayed"


def test_a_stranger_chooses_no_predecessor_of_two_renewals(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    first = claim(
        opened(mirror, maker), Move("latest", None, maker.image("1.0").digest, 1, MoveCause.PUBLISH, "1.0"), 50, None
    )
    strangers = [one for one in listed(mirror, maker) if one.descriptor.digest == first.record]
    show_only(mirror, maker, strangers)
    publish(mirror, maker, "1.1")
    publish(mirror, maker, "1.2", "1.3")
    signed_meanwhile(mirror, maker, strangers, first.record, "1.3")
    assert verdict(mirror, maker) == "1.3"
    point(mirror, "latest", maker.image("1.1").digest)
    assert verdict(mirror, maker) == "tag-replayed"


def test_a_move_that_is_signed_after_a_part_of_the_history_allows_nothing_of_that_part(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    """The mirror shows the first move alone while 1.4 is published."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1", "1.2", "1.3")
    saved = listed(mirror, maker)
    repository = opened(mirror, maker)
    seen, *_, first = list_statements(repository, repository.identity, "latest")
    show_only(mirror, maker, [one for one in saved if one.descriptor.digest == first.record])
    publish(mirror, maker, "1.4")
    show_all(mirror, maker, saved)
    repository = opened(mirror, maker)
    newest = list_statements(repository, repository.identity, "latest")[0].statement
    assert not newest.renews and newest.number > seen.statement.number + NEAR
    assert verdict(mirror, maker, store="client") == "1.4"
    for version in ("1.0", "1.1", "1.2"):
        point(mirror, "latest", maker.image(version).digest)
        assert verdict(mirror, maker, store=version) == "tag-replayed"


def test_a_mirror_that_was_restored_goes_on(tmp_path: Path, maker: ImagePublisher) -> None:
    """Nothing is withheld on purpose: what was restored is an older state, tag and all."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    backup = listed(mirror, maker)
    publish(mirror, maker, "1.2", "1.3")
    show_only(mirror, maker, backup)
    point(mirror, "latest", maker.image("1.1").digest)
    assert verdict(mirror, maker) == "moves-rolled-back"
    publish(mirror, maker, "1.4")
    assert verdict(mirror, maker) == "1.4"
    assert verdict(mirror, maker, store="fresh") == "1.4"
    assert rollback(at(mirror), None, NEW, RULES, maker.build_env).version == "1.1"


def test_a_tag_is_believed_without_the_bundle_of_its_move(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    repository = opened(mirror, maker)
    for one in list_statements(repository, repository.identity, "latest"):
        manifest = repository.manifest(one.record)
        assert manifest is not None
        (mirror / "blobs" / "sha256" / bundle_layer(manifest).digest.hex).unlink()
    assert verdict(mirror, maker) == "1.1"
    point(mirror, "latest", maker.image("1.0").digest)
    assert verdict(mirror, maker) == "tag-replayed"


def test_what_was_signed_by_a_clock_that_was_ahead_is_told_and_signed_anew(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    right = maker.clock.now
    maker.clock.now += 20 * 365 * DAY
    publish(mirror, maker, "1.1")
    maker.clock.now = right + DAY
    with pytest.raises(RelbuildError, match="the publisher's clock was ahead") as caught:
        verify_reference(at(mirror), NEW.public, maker.build_env)
    assert caught.value.code == "tag-frozen"
    stale = verify_reference(at(mirror), NEW.public, maker.build_env, allow_stale=True).tag
    assert stale is not None and stale.stale
    assert renew(opened(mirror, maker), NEW, MirrorRules(), maker.build_env, {}).tags == ("latest",)
    assert verdict(mirror, maker) == "1.1"
    assert renew(opened(mirror, maker), NEW, MirrorRules(), maker.build_env, {}).tags == ()
    maker.clock.now += 15 * DAY
    assert verdict(mirror, maker) == "tag-frozen"


def test_a_shorter_validity_holds_from_the_next_night_on(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    maker.publish(opened(mirror, maker), maker.image("1.0"), tags=("latest",), signer=NEW, validity=90 * 86_400)
    assert renew(opened(mirror, maker), NEW, MirrorRules(validity=86_400), maker.build_env, {}).tags == ("latest",)
    maker.clock.now += 2 * DAY
    assert verdict(mirror, maker) == "tag-frozen"


def test_the_clocks_of_two_publishers_may_differ(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    maker.publish(opened(mirror, maker), maker.image("1.0"), tags=("latest",), signer=NEW, validity=90 * 86_400)
    maker.clock.now -= 600
    assert verdict(mirror, maker) == "1.0"
    longest = MirrorRules(validity=90 * 86_400)
    assert renew(opened(mirror, maker), NEW, longest, maker.build_env, {}).tags == ()


def test_who_stole_a_former_key_uses_up_no_numbers_of_the_new_one(tmp_path: Path, maker: ImagePublisher) -> None:
    """The theft is not known yet when the key is changed."""
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"), tags=("1.0", "latest"), signer=OLD)
    stolen = list_statements(repository, repository.identity, "latest")[0].statement
    write_statement(repository, replace(stolen, number=STATEMENT_NUMBER_LIMIT - 2), OLD)
    promote(at(mirror), "latest", NEW, RULES, maker.build_env, former=(OLD.public,))
    assert verdict(mirror, maker) == "1.0"
    publish(mirror, maker, "1.1", "1.2")
    assert verdict(mirror, maker) == verdict(mirror, maker, store="fresh") == "1.2"


def test_what_was_announced_and_withdrawn_is_believed_no_longer_than_its_publisher_may_be_at_it(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    move = announced(mirror, maker)
    signed_tag(mirror, maker).withdraw(move.before)
    point(mirror, "latest", move.after)
    assert verdict(mirror, maker) == "1.2"
    maker.clock.now += 4 * DAY
    point(mirror, "latest", maker.image("1.1").digest)
    assert "latest" in renew(opened(mirror, maker), NEW, MirrorRules(), maker.build_env, {}).tags
    assert verdict(mirror, maker) == "1.1"
    point(mirror, "latest", move.after)
    assert verdict(mirror, maker) == "tag-replayed"


@pytest.mark.parametrize("case", ["confirmed", "elsewhere", "another", "missing"])
def test_nothing_is_withdrawn_where_there_is_nothing_to_withdraw(
    case: str, tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    if case == "confirmed":
        publish(mirror, maker, "1.0", "1.1")
    else:
        announced(mirror, maker)
    if case == "elsewhere":
        point(mirror, "latest", maker.image("1.2").digest)
    count = len(listed(mirror, maker))
    asked = {"another": maker.image("1.2").digest, "missing": None}.get(case, maker.image("1.1").digest)
    signed_tag(mirror, maker).withdraw(asked)
    assert len(listed(mirror, maker)) == count


def test_a_blob_that_is_too_large_for_a_statement_is_not_read(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    repository = opened(mirror, maker)
    entries = unsigned_in_list(listed(mirror, maker))
    manifest = repository.manifest(entries[0].descriptor.digest)
    assert manifest is not None
    bundle, anchor = bundle_layer(manifest), anchor_manifest(repository.identity, "latest")
    padded = repository.read_blob(bundle).ljust(STATEMENT_SIZE_LIMIT + 1)
    large = make_referrer(
        media_types.SIGSTORE_BUNDLE,
        [(media_types.SIGSTORE_BUNDLE, padded)],
        anchor.descriptor,
        dict(entries[0].descriptor.annotations),
    )
    for descriptor, content in large.blobs:
        repository.put_blob(descriptor, content)
    repository.put_manifest(large.manifest)
    notes = entries[0].descriptor.annotations
    show_only(mirror, maker, [replace(entries[0], descriptor=replace(large.manifest.descriptor, annotations=notes))])
    assert verdict(mirror, maker, store="fresh") == "tag-unsigned"
