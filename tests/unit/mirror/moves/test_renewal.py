"""What is signed of tags is renewed by each night before it is too old, also by one without changes, and by no more."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror import tag_signing
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_signing import Confirmation, SignedTag
from pipeline.mirror.tag_statements import list_statements
from pipeline.model.night_record import Outcome, Product, ProductRun
from pipeline.model.publication import Move, MoveCause, RecordedStatement
from pipeline.model.published_image import PublishedImage
from pipeline.model.rules import MirrorRules
from pipeline.nightly.job import RunSettings
from pipeline.nightly.renewal import renew_tags
from pipeline.nightly.renewal_due import products_due, remember_due
from pipeline.release import promote, rollback, verify_reference
from pipeline.release.current_images import tag_signer
from pipeline.release.renew import RenewalResult, renew
from tests.support import mirror_images
from tests.support.journal import Told
from tests.support.moved_tags import point
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.signing_examples import PRIVATE

DAY = 86_400.0


@pytest.fixture
def mirror(tmp_path: Path, maker: ImagePublisher) -> DirectoryMirror:
    """One product with a channel, published a while ago."""
    mirror = open_directory(tmp_path / "mirror", create=True, clock=maker.clock)
    maker.publish(mirror.repository("small"), maker.image("1.0"), tags=("1.0", "latest"))
    promote(parse_address(f"{mirror.url}/small:latest"), "stable", key(), RULES, maker.build_env)
    return mirror


def renewed(mirror: DirectoryMirror, maker: ImagePublisher, own: Mapping[str, Digest] | None = None) -> RenewalResult:
    return renew(mirror.repository("small"), key(), MirrorRules(), maker.build_env, own or {})


def believed(mirror: DirectoryMirror, maker: ImagePublisher, *tags: str) -> None:
    for tag in tags:
        verify_reference(parse_address(f"{mirror.url}/small:{tag}"), key().public, maker.build_env)


def test_every_signed_tag_is_renewed_when_a_quarter_of_its_time_is_over(
    mirror: DirectoryMirror, maker: ImagePublisher
) -> None:
    before = mirror_images.all_files(mirror.place.root)
    maker.clock.now += 3 * DAY
    first = renewed(mirror, maker)
    assert first.tags == () and mirror_images.all_files(mirror.place.root) == before
    assert 0 < first.due - maker.clock() * 1000 < DAY * 1000
    for _ in range(6):
        maker.clock.now += 4 * DAY
        done = renewed(mirror, maker)
        assert (done.tags, done.left) == (("1.0", "latest", "stable"), ())
        believed(mirror, maker, *done.tags)
    repository = mirror.repository("small")
    assert len(list_statements(repository, repository.identity, "latest")) == 2
    assert len(read_history(repository, "latest")) == 1


def test_what_points_elsewhere_than_is_signed_is_not_renewed(mirror: DirectoryMirror, maker: ImagePublisher) -> None:
    repository = mirror.repository("small")
    maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
    link = mirror.place.paths("small").tags / "latest"
    old = (mirror.place.paths("small").tags / "1.0").readlink()
    link.unlink()
    link.symlink_to(old)
    maker.clock.now += 10 * DAY
    done = renewed(mirror, maker)
    assert done.left == ("latest",) and set(done.tags) == {"1.0", "1.1", "stable"}


def test_what_nobody_signed_is_signed_where_the_night_knows_that_it_is_right(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path
) -> None:
    """A mirror that is older than signed moves."""
    repository = mirror.repository("small")
    digest = maker.image("1.0").digest
    for tag in repository.tags():
        manifest = repository.manifest(tag)
        if manifest is not None and b"org.relbuild.move" in manifest.data:
            repository.remove_tag(tag, manifest.digest)
    assert renewed(mirror, maker).left == ("1.0", "latest", "stable")
    own = {"latest": digest, "1.0": maker.image("9.9").digest}
    assert renewed(mirror, maker, own).left == ("1.0", "latest", "stable")  # This store has seen what is missing.
    fresh = ImagePublisher.at(tmp_path / "fresh")
    done = renewed(mirror, fresh, own)
    assert (done.tags, done.left) == (("latest",), ("1.0", "stable"))
    believed(mirror, fresh, "latest")
    (signed,) = list_statements(repository, repository.identity, "latest")
    assert signed.statement.move.version == "1.0"


def test_a_signed_move_that_is_listed_counts_also_where_its_manifest_is_lost(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path
) -> None:
    """Who can write to the mirror removes the manifest, and points the tag elsewhere."""
    repository, paths = mirror.repository("small"), mirror.place.paths("small")
    other = maker.image("1.1").digest
    maker.publish(repository, maker.image("1.1"), tags=("1.1",))
    for one in list_statements(repository, repository.identity, "latest"):
        lost = paths.find(one.record)
        assert lost is not None
        lost.unlink()
    point(mirror.place.root, "latest", other)
    done = renewed(mirror, ImagePublisher.at(tmp_path / "fresh"), {"latest": other})
    assert done.left == ("latest",)


@pytest.mark.parametrize("how", ["pointed back", "mirror set back"])
def test_a_tag_is_not_signed_where_it_was_last_published_if_a_person_moved_it_since(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path, how: str
) -> None:
    """Who can write to the mirror, and cannot sign, points it there again; the next night knows what it published."""
    root, withdrawn = mirror.place.root, maker.image("1.1").digest
    maker.publish(mirror.repository("small"), maker.image("1.1"), tags=("1.1", "latest"))
    shutil.copytree(root, tmp_path / "before", symlinks=True)
    rollback(parse_address(f"{mirror.url}/small:latest"), None, key(), RULES, maker.build_env)
    if how == "pointed back":
        point(root, "latest", withdrawn)
    else:
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "before", root, symlinks=True)
    mirror = open_directory(root, create=False, clock=maker.clock)
    maker.clock.now += 5 * DAY
    done = renewed(mirror, maker, {"1.1": withdrawn, "latest": withdrawn})
    assert done.left == ("latest",) and set(done.tags) == {"1.0", "1.1", "stable"}
    with pytest.raises(VerificationError, match=r"tag-replayed|moves-rolled-back"):
        believed(mirror, maker, "latest")


def test_a_move_that_may_be_under_way_is_left_alone(mirror: DirectoryMirror, maker: ImagePublisher) -> None:
    """Also one to where the night knows the tag: whoever makes it confirms it, and may be making another."""
    repository, digest = mirror.repository("small"), maker.image("1.0").digest
    signer = tag_signer(key(), MirrorRules(), maker.build_env)
    other = Move("latest", digest, maker.image("1.1").digest, signer.now, MoveCause.PUBLISH)
    SignedTag(repository, repository.identity, "latest", signer).announce(other)
    listed = list_statements(repository, repository.identity, "latest")
    done = renewed(mirror, maker, {"latest": digest})
    assert "latest" not in {*done.tags, *done.left} and done.due <= maker.clock() * 1000
    assert list_statements(repository, repository.identity, "latest") == listed


@pytest.mark.parametrize("made", [False, True], ids=["announced", "made, and set back without a signature"])
def test_a_move_that_is_signed_after_the_reading_is_not_signed_over(
    mirror: DirectoryMirror, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """A renewal would have a tag taken for one that was set back, or the image believed that it was moved away from."""
    repository, digest = mirror.repository("small"), maker.image("1.0").digest
    signer = tag_signer(key(), MirrorRules(), maker.build_env)
    other = SignedTag(repository, repository.identity, "latest", signer)
    moving, begun, listed = DirectoryRepository.moving, itertools.count(1), []

    def later(self: DirectoryRepository) -> contextlib.AbstractContextManager[None]:
        if next(begun) == 2:  # that of `latest`, which was read by now
            if made:
                maker.publish(repository, maker.image("1.1"), tags=("latest",))
                point(mirror.place.root, "latest", digest)
            else:
                other.announce(Move("latest", digest, Digest.of(b"next"), signer.now, MoveCause.PUBLISH))
            listed.extend(list_statements(repository, repository.identity, "latest"))
        return moving(self)

    monkeypatch.setattr(DirectoryRepository, "moving", later)
    maker.clock.now += 10 * DAY
    done = renewed(mirror, maker)
    assert set(done.tags) == {"1.0", "stable"} and done.due <= maker.clock() * 1000
    assert list_statements(repository, repository.identity, "latest") == tuple(listed)


@pytest.mark.parametrize("bad", ["1.0", "stable"], ids=["the first", "the last"])
def test_a_tag_that_fails_keeps_no_other_from_its_renewal(
    mirror: DirectoryMirror, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    broken = VerificationError("document-malformed", "somebody planted it")
    listing = tag_signing.list_statements

    def malformed(repository: Repository, identity: str, tag: str) -> tuple[RecordedStatement, ...]:
        if tag == bad:
            raise broken
        return listing(repository, identity, tag)

    monkeypatch.setattr(tag_signing, "list_statements", malformed)
    maker.clock.now += 10 * DAY
    done = renewed(mirror, maker)
    assert done.failed == {bad: broken} and not done.left
    assert {*done.tags, bad} == {"1.0", "latest", "stable"} and len(done.tags) == 2
    assert done.due <= maker.clock() * 1000
    monkeypatch.undo()
    assert renewed(mirror, maker).tags == (bad,)


def test_a_night_tells_which_tag_it_could_not_renew_and_tries_again(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, product = night_of(mirror, maker, tmp_path)
    answers = Told()
    build_env = replace(maker.build_env, progress=answers)
    confirm = SignedTag.confirm

    def refused(self: SignedTag, *given: Any) -> Confirmation:
        if self.tag == "latest":
            raise EnvironmentLacking("registry-failing", "it fails")
        return confirm(self, *given)

    monkeypatch.setattr(SignedTag, "confirm", refused)
    renew_tags([product], settings, mirror, build_env)
    (warning,) = answers.warnings
    assert warning.startswith("small: the signed move of tag 'latest' was not renewed: it fails")
    assert products_due(maker.store, str(settings.to), ["small"], int(maker.clock() * 1000), key="") == ("small",)


def night_of(mirror: DirectoryMirror, maker: ImagePublisher, folder: Path) -> tuple[RunSettings, Product]:
    """The settings of a night, and the product as it was published."""
    file = folder / "night.key"
    file.touch(0o600)
    file.write_bytes(PRIVATE)
    published = PublishedImage(digest=maker.image("1.0").digest, tags=("latest",))
    product = Product("small", "small.yaml", "p", "x86_64", ProductRun(Outcome.UNCHANGED, ""), published)
    return RunSettings(folder, parse_address(mirror.url), file, folder, folder, {}, maker.clock), product


def test_a_night_renews_what_is_due_and_asks_its_store_alone_when_nothing_is(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path
) -> None:
    settings, product = night_of(mirror, maker, tmp_path)
    to = settings.to
    absent = Product("never", "never.yaml", "p", "x86_64", ProductRun(Outcome.FAILED, ""))

    def waiting() -> tuple[str, ...]:
        return products_due(maker.store, str(to), ["small"], int(maker.clock() * 1000), key="")

    assert waiting() == ("small",)
    renew_tags([product, absent], settings, mirror, maker.build_env)
    before = mirror_images.all_files(mirror.place.root)
    assert waiting() == ()
    renew_tags([product, absent], settings, None, maker.build_env)  # the mirror is not even looked at
    maker.clock.now += 4 * DAY
    assert waiting() == ("small",)
    renew_tags([product, absent], settings, mirror, maker.build_env)
    assert waiting() == () and mirror_images.all_files(mirror.place.root) != before
    maker.clock.now += 13 * DAY
    believed(mirror, maker, "latest", "stable")


def test_an_operator_says_how_long_it_is_believed(tmp_path: Path, maker: ImagePublisher) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=maker.clock)
    maker.publish(mirror.repository("small"), maker.image("1.0"), validity=2 * 86_400)
    maker.clock.now += 1.5 * DAY
    believed(mirror, maker, "latest")
    maker.clock.now += DAY
    with pytest.raises(VerificationError, match="expired"):
        believed(mirror, maker, "latest")


def test_a_time_that_a_clock_remembered_that_was_ahead_is_due(maker: ImagePublisher) -> None:
    now, day = int(maker.clock() * 1000), int(DAY * 1000)
    for days, due in ((10, ()), (90, ()), (91, ("small",)), (20 * 365, ("small",))):
        remember_due(maker.store, "dir:there", "small", now + days * day, key="")
        assert products_due(maker.store, "dir:there", ["small"], now, key="") == due
