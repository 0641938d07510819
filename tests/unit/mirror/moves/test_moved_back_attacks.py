"""Who can write to a mirror, but not sign, neither keeps a tag where it is nor has a night sign a move of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_moves import TagMover
from pipeline.mirror.tag_statements import list_statements, write_statement
from pipeline.model.publication import Move, MoveCause, Publication, TagStatement
from pipeline.release import promote, rollback, verify_reference
from tests.support.moved_tags import opened, point, resolved
from tests.support.old_records import write_down
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry


def night(repository: Repository, maker: ImagePublisher, version: str) -> Publication:
    image = maker.image(version)
    return maker.publish(repository, image, tags=(version, "latest"), read_back=True, leave_moved_back=True)


@pytest.fixture
def repository(tmp_path: Path, maker: ImagePublisher) -> Repository:
    """A repository of two versions; `latest` is the second."""
    found = opened(tmp_path / "mirror", maker)
    for version in ("1.0", "1.1"):
        maker.publish(found, maker.image(version), tags=(version, "latest"))
    return found


@pytest.mark.parametrize("signed", [True, False], ids=["by a key of theirs", "by nobody"])
@pytest.mark.parametrize("first", ["stays", "removed"])
def test_a_forged_rollback_does_not_keep_a_tag(
    repository: Repository, maker: ImagePublisher, first: str, signed: bool
) -> None:
    """The digest of an image that is not published yet is known: builds are reproducible."""
    old, new = resolved(repository, "latest"), maker.image("1.2").digest
    oldest = min(
        list_statements(repository, repository.identity, "latest"),
        key=lambda one: (one.statement.renews, one.statement.number),
    )
    if first == "removed":
        repository.remove_referrer(oldest.record)
        old = maker.image("1.0").digest
    back = Move("latest", new, old, int(maker.clock() * 1000), MoveCause.ROLLBACK, "1.0")
    if signed:
        said = TagStatement(repository.identity, back, 9, oldest.record, int(maker.clock() * 1000) + 10**9)
        write_statement(repository, said, key(7))
    write_down(repository, back)
    done = night(repository, maker, "1.2")
    assert ([move.tag for move in done.moved], done.left) == (["1.2", "latest"], ())


def test_a_record_that_cannot_be_read_hides_no_rollback(repository: Repository, maker: ImagePublisher) -> None:
    rollback(parse_address(f"{repository.url}:latest"), None, key(), RULES, maker.build_env)
    nonsense: MoveCause = "nonsense"  # type: ignore[assignment]
    write_down(repository, Move("latest", None, maker.image("1.0").digest, 1, nonsense, "1.0"))
    assert night(repository, maker, "1.1").left == (("latest", maker.image("1.0").digest),)


def test_a_withdrawn_image_that_is_pointed_to_without_a_signature_is_not_signed(
    repository: Repository, maker: ImagePublisher, tmp_path: Path
) -> None:
    latest = parse_address(f"{repository.url}:latest")
    withdrawn = maker.image("1.1").digest
    rollback(latest, None, key(), RULES, maker.build_env)
    maker.clock.now += 2 * 86_400  # type: ignore[misc]
    night(repository, maker, "1.0")
    point(tmp_path / "mirror", "latest", withdrawn)
    again = opened(tmp_path / "mirror", maker)
    signed = list_statements(again, again.identity, "latest")
    done = night(again, maker, "1.1")
    assert (done.moved, done.unmoved, done.left) == ((), ("1.1",), (("latest", withdrawn),))
    assert list_statements(again, again.identity, "latest") == signed
    with pytest.raises(VerificationError, match="tag-replayed"):
        verify_reference(latest, key().public, maker.build_env)
    promote(parse_address(f"{again.url}:1.1"), "latest", key(), RULES, maker.build_env)
    assert night(again, maker, "1.1").left == ()


def test_a_rollback_while_a_night_publishes_is_kept(maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a registry others move tags meanwhile: one publishes the night's image, and a person takes it back."""
    begin, begun = TagMover._begin, []

    def late(self: TagMover, tag: str, *given: Any) -> Any:
        begun.append(tag)
        if tag == "latest" and begun.count(tag) == 1:
            maker.publish(self.repository, maker.image("1.2"), tags=("latest",))
            rollback(parse_address(f"{self.repository.url}:latest"), first, key(), RULES, maker.build_env)
        return begin(self, tag, *given)

    with fake_registry() as registry, open_mirror(registry) as there:
        found = there.repository("small")
        for version in ("1.0", "1.1"):
            maker.publish(found, maker.image(version), tags=(version, "latest"))
        first = maker.image("1.0").digest
        monkeypatch.setattr(TagMover, "_begin", late)
        done = night(found, maker, "1.2")
        assert ([move.tag for move in done.moved], done.left) == (["1.2"], (("latest", first),))
        assert resolved(found, "latest") == first
        verify_reference(parse_address(f"{found.url}:latest"), key().public, maker.build_env)
