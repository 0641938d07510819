"""Several tags that move at once: signed side by side, moved one after the other, settled side by side."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import TagConflict
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_moves import TagMover
from pipeline.mirror.tag_signing import Confirmation, SignedTag
from pipeline.model.publication import Move, RecordedStatement
from pipeline.release import verify_reference
from tests.support.patience import HUNG
from tests.support.published_images import ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry

TAGS = ("1.1.0", "1.1", "1", "latest")


@pytest.mark.costly
@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "fallback tag"])
def test_moves_are_signed_side_by_side_and_made_in_their_order(
    api: bool, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No move is signed before all are being signed, and none is made before all are signed."""
    signing, confirming = threading.Barrier(len(TAGS), timeout=HUNG), threading.Barrier(len(TAGS), timeout=HUNG)
    done: list[str] = []
    announce, confirm, point = SignedTag.announce, SignedTag.confirm, RegistryRepository.point

    def announcing(self: SignedTag, move: Move, listed: tuple[RecordedStatement, ...] | None = None) -> None:
        signing.wait()
        announce(self, move, listed)
        done.append("signed")

    def confirmed(self: SignedTag, *given: Any) -> Confirmation:
        confirming.wait()
        return confirm(self, *given)

    def pointing(self: RegistryRepository, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        if tag in TAGS:
            done.append(tag)
        point(self, tag, cleared, expected)

    monkeypatch.setattr(TagMover, "_gate_saw", lambda *_: True)  # the gate was told what the tags point to
    monkeypatch.setattr(SignedTag, "announce", announcing)
    monkeypatch.setattr(SignedTag, "confirm", confirmed)
    monkeypatch.setattr(RegistryRepository, "point", pointing)
    with fake_registry(referrers=api, tag_deletion=api) as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        for version in ("1.0", "1.1"):
            done.clear()
            publication = maker.publish(repository, maker.image(version), tags=TAGS)
            assert [move.tag for move in publication.moved] == list(TAGS)
            assert done == ["signed"] * len(TAGS) + list(TAGS)
        for tag in TAGS:
            verify_reference(parse_address(f"{repository.url}:{tag}"), key().public, maker.build_env)
            assert [one.happened for one in read_history(repository, tag)] == [True, True]


def test_one_tag_that_others_move_keeps_no_other_from_its_place(
    maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = RegistryRepository.point

    def pointing(self: RegistryRepository, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        if tag == "1.1":
            raise TagConflict(tag, None, written=True)
        point(self, tag, cleared, expected)

    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        maker.publish(repository, maker.image("1.0"), tags=TAGS)
        monkeypatch.setattr(RegistryRepository, "point", pointing)
        with pytest.raises(PublicationRefused) as caught:
            maker.publish(repository, maker.image("1.1"), tags=TAGS)
        assert [problem.code for problem in caught.value.problems] == ["tag-overtaken"]
        new = maker.image("1.1").digest
        assert {tag for tag in TAGS if repository.resolve(tag) == new} == {"1.1.0", "1", "latest"}
        for tag in TAGS:
            verify_reference(parse_address(f"{repository.url}:{tag}"), key().public, maker.build_env)
