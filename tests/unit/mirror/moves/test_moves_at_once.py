"""Publishers that are killed while a tag moves, that move it at the same time, or whose clock goes back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.tag_history import earlier_digests, read_history
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import (
    STATEMENT_NUMBER_LIMIT,
    TagSigner,
    list_statements,
    write_statement,
)
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move, MoveCause
from pipeline.release import rollback, verify_reference
from tests.support import mirror_images
from tests.support.moved_tags import (
    DAY,
    at,
    code_of,
    opened,
    replay,
    resolved,
)
from tests.support.old_records import write_down
from tests.support.published_images import RULES, ImagePublisher, key


class Killed(BaseException):
    """What stands for SIGKILL."""


@pytest.mark.parametrize("step", ["attach", "point", "pointed", "settled"])
def test_a_publisher_that_is_killed_leaves_a_tag_that_verifies(
    step: str, mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the move is signed, after it was made, and before that was signed."""
    repository = opened(mirror, maker)
    before, after = resolved(repository, "latest"), maker.image("1.2").digest
    with monkeypatch.context() as patched:
        _kill(patched, step)
        with pytest.raises(Killed):
            maker.publish(repository, maker.image("1.2"))
    stands = after if step in ("pointed", "settled") else before
    found = verify_reference(at(mirror), key().public, maker.build_env)
    assert found.held.digest == stands
    rolled = [one.move.after for one in read_history(repository, "latest") if one.happened]
    assert rolled[-1] == stands
    maker.publish(repository, maker.image("1.2"))
    assert verify_reference(at(mirror), key().public, maker.build_env).held.digest == after
    made = [one.move for one in read_history(repository, "latest") if one.happened]
    assert [move.after for move in made] == [maker.image(version).digest for version in ("1.0", "1.1", "1.2")]
    replay(mirror, maker)
    assert code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env)) == "tag-replayed"


def _kill(patched: pytest.MonkeyPatch, step: str) -> None:
    point, attach_all = DirectoryRepository.point, DirectoryRepository.attach_all
    pointed = []

    def pointing(self: DirectoryRepository, tag: str, *rest: object) -> None:
        if tag == "latest" and step == "point":
            raise Killed
        point(self, tag, *rest)  # type: ignore[arg-type]
        if tag == "latest":
            pointed.append(tag)
            if step == "pointed":
                raise Killed

    def attaching(self: DirectoryRepository, manifests: Sequence[Manifest]) -> None:
        moves = any(b"org.relbuild.move." in one.data for one in manifests)
        if moves and (step == "attach" or (pointed and step == "settled")):
            raise Killed
        attach_all(self, manifests)

    patched.setattr(DirectoryRepository, "point", pointing)
    patched.setattr(DirectoryRepository, "attach_all", attaching)


def test_of_two_who_sign_a_move_from_the_same_place_one_is_told_as_made(mirror: Path, maker: ImagePublisher) -> None:
    """The other signs his move first, and finds the tag moved when he comes to it."""
    repository = opened(mirror, maker)
    signer = TagSigner(key(), maker.clock)
    before = resolved(repository, "latest")
    late = maker.image("1.3").digest
    SignedTag(repository, repository.identity, "latest", signer).announce(
        Move("latest", before, late, signer.now, MoveCause.PUBLISH, "1.3")
    )
    maker.publish(repository, maker.image("1.2"))
    verify_reference(at(mirror), key().public, maker.build_env)
    told = [(one.move.version, one.happened) for one in read_history(repository, "latest")]
    assert told == [("1.0", True), ("1.1", True), ("1.3", False), ("1.2", True)]
    assert earlier_digests(read_history(repository, "latest"))[0] == before


def test_of_two_who_sign_the_same_move_at_once_it_counts_once(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    signer = TagSigner(key(), maker.clock)
    move = Move(
        "latest", resolved(repository, "latest"), maker.image("1.2").digest, signer.now, MoveCause.PUBLISH, "1.2"
    )
    SignedTag(repository, repository.identity, "latest", signer).announce(move)
    maker.publish(repository, maker.image("1.2"))
    past = read_history(repository, "latest")
    assert [one.move.version for one in past] == ["1.0", "1.1", "1.2", "1.2"]
    assert [one.move.version for one in past if one.happened] == ["1.0", "1.1", "1.2"]
    assert rollback(at(mirror), None, key(), RULES, maker.build_env).digest == maker.image("1.1").digest


def test_a_tag_does_not_go_elsewhere_and_come_back_between_a_look_and_a_move(
    mirror: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has signed a move and is about to make it, when others move the tag and roll it back to where he saw it."""
    repository = opened(mirror, maker)
    point = DirectoryRepository.point

    def others() -> None:
        maker.publish(opened(mirror, maker), maker.image("1.3"))
        rollback(at(mirror), None, key(), RULES, maker.build_env)

    between = threading.Thread(target=others)

    def pointing(self: DirectoryRepository, tag: str, *rest: object) -> None:
        if tag == "latest" and between.ident is None:
            between.start()
            between.join(1)  # where they are kept out they wait for as long as it takes
        point(self, tag, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectoryRepository, "point", pointing)
    maker.publish(repository, maker.image("1.2"))
    between.join()
    made = [one.move for one in read_history(repository, "latest") if one.happened]
    assert [move.version for move in made] == ["1.0", "1.1", "1.2", "1.3", "1.2"]
    assert all(later.before == earlier.after for earlier, later in itertools.pairwise(made))


def test_numbers_that_nobody_signed_leave_room_to_grow(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    said = list_statements(repository, repository.identity, "latest")[0].statement
    for number in (STATEMENT_NUMBER_LIMIT, STATEMENT_NUMBER_LIMIT // 2):
        write_statement(repository, replace(said, number=number), key(1))
    for version in ("1.2", "1.3"):
        maker.publish(repository, maker.image(version))
        assert verify_reference(at(mirror), key().public, maker.build_env).held.version == version


def test_a_clock_that_goes_back_changes_neither_history_nor_rolling_back(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    for version in ("1.2", "1.3"):
        maker.clock.now -= 6 * DAY
        maker.publish(repository, maker.image(version))
    maker.clock.now -= 6 * DAY
    past = read_history(repository, "latest")
    assert [(one.move.version, one.happened, one.signed) for one in past] == [
        (version, True, True) for version in ("1.0", "1.1", "1.2", "1.3")
    ]
    for version in ("1.2", "1.1", "1.0"):
        moved = rollback(at(mirror), None, key(), RULES, maker.build_env)
        assert moved.digest == maker.image(version).digest
    assert code_of(lambda: rollback(at(mirror), None, key(), RULES, maker.build_env)) == "history-empty"
    verify_reference(at(mirror), key().public, maker.build_env)


def test_old_records_are_told_in_their_order_though_a_clock_went_back(tmp_path: Path, maker: ImagePublisher) -> None:
    repository = opened(tmp_path / "mirror", maker)
    digests = [maker.image(version).digest for version in ("1.0", "1.1", "1.2")]
    for number, (before, after) in enumerate(zip((None, *digests), digests, strict=False)):
        write_down(
            repository, Move("latest", before, after, int((1_800_000_000 - number * 6 * DAY) * 1000), MoveCause.PUBLISH)
        )
    mirror_images.publish(repository, maker.store, maker.image("1.2"), "latest")
    past = read_history(repository, "latest")
    assert [(one.move.after, one.happened, one.signed) for one in past] == [(one, True, False) for one in digests]
