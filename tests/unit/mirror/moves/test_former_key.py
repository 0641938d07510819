"""A former key of the publisher counts for nights, copies, SBOMs and audits that name it, and for no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.attestations import find_attested
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_statements import list_statements
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey
from pipeline.oci.predicates import LOCK
from pipeline.oci.sbom import SbomForm
from pipeline.release import copy, rollback, verify_reference
from pipeline.release.inspect_reference import attested_sbom
from pipeline.release.renew import RenewalResult, renew
from tests.support.changed_keys import BOTH, FORMER, NEW, OLD, STRANGER, published_with_old_key
from tests.support.moved_tags import code_of, resolved
from tests.support.published_images import RULES, ImagePublisher


@pytest.fixture(params=["directory", "registry"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, maker: ImagePublisher) -> Iterator[Repository]:
    """By the old key: 1.0 and 1.1, `latest` moved back to 1.0, `stable` at 1.1."""
    with published_with_old_key(request.param, tmp_path, maker) as found:
        rollback(parse_address(f"{found.url}:latest"), None, OLD, RULES, maker.build_env)
        yield found


def renewed(repository: Repository, maker: ImagePublisher, signer: SigningKey = NEW, **own: Digest) -> RenewalResult:
    records = {LOCK: b'{"a":"record"}'}
    return renew(repository, signer, MirrorRules(), maker.build_env, own, former=FORMER, also=lambda _: records)


def test_a_night_leaves_a_tag_that_a_person_moved_back_with_the_former_key(
    repository: Repository, maker: ImagePublisher
) -> None:
    def night(former: bool) -> tuple[str, ...]:
        done = maker.publish(
            repository,
            maker.image("1.1"),
            signer=NEW,
            read_back=True,
            leave_moved_back=True,
            former=FORMER if former else (),
        )
        return tuple(tag for tag, _ in done.left)

    assert night(former=True) == ("latest",)
    assert resolved(repository, "latest") == maker.image("1.0").digest
    assert night(former=False) == ()


def test_a_renewal_signs_tags_images_and_records_again(repository: Repository, maker: ImagePublisher) -> None:
    own = resolved(repository, "stable")
    done = renewed(repository, maker, stable=own)
    assert set(done.tags) == {"latest", "stable"} and not done.left and not done.other_keys
    for tag in ("latest", "stable"):
        found = verify_reference(parse_address(f"{repository.url}:{tag}"), NEW.public, maker.build_env)
        good, _ = find_attested(repository, found.held.digest, LOCK, NEW.public)
        records = [b'{"a":"record"}'] if found.held.digest == own else []  # of what the night made, and of no channel
        assert [one.statement.predicate for one in good] == records
        verify_reference(parse_address(f"{repository.url}@{found.held.digest}"), OLD.public, maker.build_env)
    before = list_statements(repository, repository.identity, "stable")
    assert renewed(repository, maker).tags == ()
    assert list_statements(repository, repository.identity, "stable") == before


def test_a_renewal_reads_content_once_of_each_image(
    repository: Repository, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.publish(repository, maker.image("1.1"), tags=("edge",), signer=OLD)
    read: list[bool] = []
    from pipeline.release import sign_image_again as signing

    real = signing.verify_in_repository

    def verified(*given: object, contents: bool, **named: object) -> object:
        read.append(contents)
        return real(*given, contents=contents, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(signing, "verify_in_repository", verified)
    renewed(repository, maker)
    assert read == [False, True] * 2  # 1.0 and 1.1
    read.clear()
    renewed(repository, maker)
    assert read == [False] * 2


def test_a_renewal_signs_nothing_that_does_not_verify(repository: Repository, maker: ImagePublisher) -> None:
    """What a stranger put there, and what lost its attestations, stays as it is; the other tags are signed."""
    maker.publish(repository, maker.image("1.2"), tags=("theirs",), signer=STRANGER)
    broken = resolved(repository, "stable")
    for one in repository.referrers(broken):
        repository.remove_referrer(one.descriptor.digest)
    done = renewed(repository, maker)
    assert (set(done.tags), set(done.left)) == ({"latest"}, {"stable", "theirs"})
    assert done.other_keys == {"theirs": STRANGER.public.fingerprint}
    for tag in ("stable", "theirs"):
        assert code_of(lambda: verify_reference(parse_address(f"{repository.url}:{tag}"), NEW.public, maker.build_env))  # noqa: B023
    newest = list_statements(repository, repository.identity, "stable")
    assert all(one.statement.number <= 2 for one in newest)


def test_a_copy_is_signed_with_the_new_key_alone(repository: Repository, maker: ImagePublisher, tmp_path: Path) -> None:
    source, there = parse_address(repository.url), parse_address(f"dir:{tmp_path / 'there'}/small")
    assert code_of(lambda: copy(source, there, NEW, RULES, maker.build_env)) == "signature-wrong-key"
    copy(source, there, NEW, RULES, maker.build_env, former=FORMER)
    for tag in ("latest", "stable"):
        found = verify_reference(parse_address(f"{there.url}:{tag}"), NEW.public, maker.build_env)
        assert found.held.digest == resolved(repository, tag)


def test_a_mirror_of_the_source_keeps_the_former_keys_moves(
    repository: Repository, maker: ImagePublisher, tmp_path: Path
) -> None:
    from pipeline.mirror.signed_identity import ExpectedIdentity

    source, there = parse_address(f"{repository.url}:stable"), parse_address(f"dir:{tmp_path / 'there'}/small")
    assert code_of(lambda: copy(source, there, NEW.public, RULES, maker.build_env)) == "signature-wrong-key"
    copy(source, there, NEW.public, RULES, maker.build_env, former=FORMER)
    stable, name = parse_address(f"{there.url}:stable"), ExpectedIdentity(repository.identity)
    verify_reference(stable, BOTH, maker.build_env, identity=name)
    assert code_of(lambda: verify_reference(stable, NEW.public, maker.build_env, identity=name))


def test_an_sbom_that_the_former_key_attested_is_read(repository: Repository, maker: ImagePublisher) -> None:
    address = parse_address(f"{repository.url}:stable")
    assert code_of(lambda: attested_sbom(address, SbomForm.SPDX, NEW.public, maker.build_env)) == "signature-wrong-key"
    assert attested_sbom(address, SbomForm.SPDX, BOTH, maker.build_env) == (maker.image("1.1").digest, b"{}")
