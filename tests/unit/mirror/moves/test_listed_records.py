"""What is listed of a tag's moves: each under its own record, by publishers at once, and some of it lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import canonical_json
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.references import referrer_of
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.mirror.tag_statements import STATEMENT_NUMBER_LIMIT, list_statements, write_statement
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules
from pipeline.oci import bundle_layer
from pipeline.release import copy, promote, rollback, verify_reference
from pipeline.release.renew import renew
from tests.support.moved_tags import DAY, HOST, at, code_of, opened, point
from tests.support.published_images import RULES, ImagePublisher
from tests.support.withheld_moves import (
    NEW,
    OLD,
    announced,
    by_number,
    listed,
    noted,
    publish,
    show_all,
    show_only,
    signed_tag,
    told,
    under,
    unsigned_in_list,
    verdict,
)

VERSIONS = ("1.0", "1.1", "1.2", "1.3")


def test_what_is_listed_under_the_record_of_another_move_is_not_believed(tmp_path: Path, maker: ImagePublisher) -> None:
    """While a move is announced: the one that it names is listed with what an older one says."""
    mirror = tmp_path / "mirror"
    move = announced(mirror, maker)
    entries = by_number(mirror, maker)
    named = signed_tag(mirror, maker)._recent()[0].statement.previous
    record = next(one for one in entries.values() if one.descriptor.digest == named)
    others = [one for one in entries.values() if one is not record]
    show_only(mirror, maker, [*others, under(record, entries[1])])
    point(mirror, "latest", maker.image("1.0").digest)
    assert verdict(mirror, maker) == verdict(mirror, maker, store="fresh") == "tag-replayed"
    assert move.before is not None
    point(mirror, "latest", move.before)
    assert verdict(mirror, maker) == "1.1"


def test_a_rollback_of_a_rollback_does_not_go_forward(tmp_path: Path, maker: ImagePublisher) -> None:
    """The move before a rollback is not listed: what was before it is not known."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, *VERSIONS)
    assert rollback(at(mirror), None, NEW, RULES, maker.build_env).version == "1.2"
    saved, entries = listed(mirror, maker), by_number(mirror, maker)
    named = list_statements(opened(mirror, maker), f"{HOST}/small", "latest")[1].statement.previous
    show_only(mirror, maker, [one for one in entries.values() if one.descriptor.digest != named])
    assert code_of(lambda: rollback(at(mirror), None, NEW, RULES, maker.build_env)) == "history-empty"
    show_only(mirror, maker, saved)
    assert rollback(at(mirror), None, NEW, RULES, maker.build_env).version == "1.1"


def test_two_publishers_with_one_store_allow_where_the_tag_is_and_where_both_want_it(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    """On a registry, which has no lock: one lists, the other signs, then the first."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    for version in ("1.2", "1.3"):
        maker.publish(opened(mirror, maker), maker.image(version), tags=(version,), signer=NEW)
    first, second = signed_tag(mirror, maker), signed_tag(mirror, maker)
    seen_by_second = second._listed()
    before = maker.image("1.1").digest
    now = int(maker.clock() * 1000)
    first.announce(Move("latest", before, maker.image("1.2").digest, now, MoveCause.PUBLISH, "1.2"))
    second.announce(Move("latest", before, maker.image("1.3").digest, now, MoveCause.PUBLISH, "1.3"), seen_by_second)
    for version in ("1.1", "1.2", "1.3"):
        point(mirror, "latest", maker.image(version).digest)
        assert verdict(mirror, maker) == verdict(mirror, maker, store=f"fresh {version}") == version


def test_who_lists_before_another_has_moved_the_tag_signs_nothing_newer(tmp_path: Path, maker: ImagePublisher) -> None:
    """A verification on the same machine sees the number of the other one meanwhile."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    late = signed_tag(mirror, maker)
    seen = late._listed()
    other = ImagePublisher.at(tmp_path / "other")
    other.clock.now = maker.clock.now
    publish(mirror, other, "1.2")
    assert verdict(mirror, maker) == "1.2"
    move = Move("latest", maker.image("1.1").digest, maker.image("1.3").digest, 1, MoveCause.PUBLISH, "1.3")
    late.announce(move, seen)
    assert verdict(mirror, maker) == "1.2"


def test_a_list_that_lags_behind_what_was_written_cuts_no_history(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    move = announced(mirror, maker)
    stale = [one for number, one in by_number(mirror, maker).items() if number < 4]
    now = listed(mirror, maker)
    publisher = signed_tag(mirror, maker)
    show_only(mirror, maker, stale)
    other = replace(move, version="again")
    publisher.announce(other)
    written = listed(mirror, maker)
    show_only(mirror, maker, stale)
    point(mirror, "latest", move.after)
    publisher.confirm(move.after, "1.2", MoveCause.PUBLISH)
    show_all(mirror, maker, (*now, *written))
    assert verdict(mirror, maker) == "1.2"
    assert rollback(at(mirror), None, NEW, RULES, maker.build_env).version == "1.1"


def test_a_first_move_is_confirmed_where_the_next_is_withdrawn_after_a_restoration(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0")
    backup = listed(mirror, maker)
    publish(mirror, maker, "1.1")
    show_only(mirror, maker, backup)
    point(mirror, "latest", maker.image("1.0").digest)
    publisher, before = signed_tag(mirror, maker), maker.image("1.0").digest
    publisher.announce(Move("latest", before, maker.image("1.1").digest, 1, MoveCause.PUBLISH, "1.1"))
    assert verdict(mirror, maker, store="while") == "tag-replayed"
    publisher.withdraw(before)
    assert verdict(mirror, maker) == verdict(mirror, maker, store="after") == "1.0"


def test_a_move_after_a_restoration_is_confirmed(tmp_path: Path, maker: ImagePublisher) -> None:
    """Else the newest confirmation is one of before, and what is withdrawn later stays believed."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    backup = listed(mirror, maker)
    publish(mirror, maker, "1.2")
    show_only(mirror, maker, backup)
    point(mirror, "latest", maker.image("1.1").digest)
    publish(mirror, maker, "1.3")
    newest = list_statements(opened(mirror, maker), f"{HOST}/small", "latest")[0].statement
    assert newest.renews and newest.move.after == maker.image("1.3").digest
    assert told(mirror, maker) == [("1.0", True), ("1.1", True), ("1.3", True)]


def night(mirror: Path, maker: ImagePublisher, version: str) -> list[str]:
    done = maker.publish(
        opened(mirror, maker), maker.image(version), tags=("latest",), signer=NEW, leave_moved_back=True
    )
    return [move.tag for move in done.moved]


def test_a_night_moves_no_tag_of_which_the_mirror_withholds_something(tmp_path: Path, maker: ImagePublisher) -> None:
    """It may be that a person moved it back."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.1", "1.2", "1.3")
    before = listed(mirror, maker)
    rollback(at(mirror), None, NEW, RULES, maker.build_env)
    after = listed(mirror, maker)
    show_only(mirror, maker, before)
    assert night(mirror, maker, "1.3") == []
    show_only(mirror, maker, after)
    assert verdict(mirror, maker) == "1.2"
    assert night(mirror, maker, "1.4") == ["latest"]


def test_a_rollback_is_known_beyond_a_move_that_names_none_before_it(tmp_path: Path, maker: ImagePublisher) -> None:
    """It was promoted again while the mirror withheld the rollback."""
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.1", "1.2", "1.3")
    rollback(at(mirror), None, NEW, RULES, maker.build_env)
    after = listed(mirror, maker)
    show_only(mirror, maker, [by_number(mirror, maker)[1]])
    promote(at(mirror, f"@{maker.image('1.2').digest}"), "latest", NEW, RULES, maker.build_env)
    show_all(mirror, maker, after)
    assert night(mirror, maker, "1.3") == []
    assert verdict(mirror, maker) == "1.2"


def test_a_number_that_a_stolen_former_key_signed_and_is_listed_no_more_sets_nothing_back(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"), tags=("latest",), signer=OLD)
    saved = listed(mirror, maker)
    stolen = list_statements(repository, repository.identity, "latest")[0].statement
    write_statement(repository, replace(stolen, number=STATEMENT_NUMBER_LIMIT - 2), OLD)
    both = replace(NEW.public, former=(OLD.public,))
    verify_reference(at(mirror), both, maker.build_env)
    show_only(mirror, maker, saved)
    maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("latest",), signer=NEW, former=(OLD.public,))
    assert list_statements(opened(mirror, maker), f"{HOST}/small", "latest")[0].statement.number == 3
    maker.clock.now += 5 * DAY
    done = renew(opened(mirror, maker), NEW, MirrorRules(), maker.build_env, {}, former=(OLD.public,))
    assert done.tags == ("latest",)


@pytest.mark.parametrize("lost", ["bundle of the oldest", "all manifests"])
def test_a_copy_has_all_moves_also_those_whose_documents_are_lost(
    lost: str, tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, *VERSIONS)
    repository = opened(mirror, maker)
    statements = list_statements(repository, repository.identity, "latest")
    for one in statements if lost == "all manifests" else statements[-1:]:
        manifest = repository.manifest(one.record)
        assert manifest is not None
        if lost == "all manifests":
            next((mirror / "repositories/small/_manifests").glob(f"{one.record.hex}.*")).unlink()
        else:
            (mirror / "blobs/sha256" / bundle_layer(manifest).digest.hex).unlink()
    there = at(tmp_path / "there", "")
    copy(at(mirror), there, NEW.public, RULES, maker.build_env)
    found = verify_reference(
        at(tmp_path / "there"), NEW.public, maker.build_env, identity=ExpectedIdentity(f"{HOST}/small")
    )
    assert found.tag is not None and found.tag.number == statements[0].statement.number
    copied = open_directory(tmp_path / "there", create=False, clock=maker.clock).repository("small")
    assert {one.record for one in list_statements(copied, f"{HOST}/small", "latest")} == {
        one.record for one in statements
    }
    assert all(copied.has_manifest(one.record) for one in statements)


def test_a_copy_passes_over_an_own_move_that_is_listed_under_a_manifest_whose_bundle_is_missing(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    repository = opened(mirror, maker)
    own = list_statements(repository, repository.identity, "latest")[-1]
    manifest = repository.manifest(own.record)
    assert manifest is not None
    bundle = bundle_layer(manifest).digest
    planted = Manifest(manifest.media_type, manifest.data.replace(bundle.hex.encode(), b"ab" * 32))
    folder = mirror / "repositories/small/_manifests"
    name = next(folder.glob(f"{own.record.hex}.*")).name
    (folder / name.replace(own.record.hex, planted.digest.hex)).write_bytes(planted.data)
    show_only(mirror, maker, [*listed(mirror, maker), referrer_of(planted)])
    assert verdict(mirror, maker) == "1.1"
    copy(at(mirror), at(tmp_path / "there", ""), NEW.public, RULES, maker.build_env)


@pytest.mark.parametrize("signed", [True, False])
def test_a_damaged_manifest_of_an_old_confirmation_ends_no_publication(
    signed: bool, tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    newest = list_statements(opened(mirror, maker), f"{HOST}/small", "latest")[0]
    next((mirror / "repositories/small/_manifests").glob(f"{newest.record.hex}.*")).write_bytes(canonical_json({}))
    if not signed:
        show_only(mirror, maker, unsigned_in_list(listed(mirror, maker)))
    maker.clock.now += 7200
    publish(mirror, maker, "1.2", "1.3")
    assert verdict(mirror, maker) == "1.3"


def test_a_signature_that_was_cut_off_in_the_list_is_read_from_the_bundle(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    short = [noted(one, signature="MEUCIQ") for one in listed(mirror, maker)]
    show_only(mirror, maker, short)
    assert verdict(mirror, maker) == verdict(mirror, maker, store="fresh") == "1.1"


def test_a_publisher_names_no_record_under_which_another_move_is_listed(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = tmp_path / "mirror"
    publish(mirror, maker, "1.0", "1.1")
    entries = by_number(mirror, maker)
    show_only(mirror, maker, [under(entries[1], entries[2])])
    assert signed_tag(mirror, maker)._recent() == ()
    show_only(mirror, maker, [entries[2]])
    assert [one.statement.number for one in signed_tag(mirror, maker)._recent()] == [2]
