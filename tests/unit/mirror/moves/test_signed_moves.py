"""A tag is believed by its newest signed move: what was replayed, frozen, or moved by nobody who signs is refused, each
by its own code, here and on a mirror that was copied elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.digest import Digest, identity
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_statements import (
    TagMemory,
    anchor_manifest,
    list_statements,
    write_statement,
)
from pipeline.mirror.verification import Verified
from pipeline.model.publication import Move, MoveCause
from pipeline.release import (
    copy,
    promote,
    rollback,
    verify_reference,
)
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.moved_tags import (
    DAY,
    HOST,
    at,
    code_of,
    opened,
    point,
    replay,
    resolved,
    unsign,
)
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry


@dataclass(frozen=True)
class Attack:
    """Something done to a mirror by one who cannot sign, or time that passed; and the code that tells of it."""

    name: str
    code: str
    act: Callable[[Path, ImagePublisher], None]


def swap(mirror: Path, maker: ImagePublisher) -> None:
    maker.publish(opened(mirror, maker, "other"), maker.image("9.0", "other"))
    theirs, ours = (mirror / "repositories" / name for name in ("other", "small"))
    for path in (theirs / "_manifests").iterdir():
        shutil.copy(path, ours / "_manifests" / path.name)
    for path in (theirs / "_tags").iterdir():
        (ours / "_tags" / path.name).unlink(missing_ok=True)
        (ours / "_tags" / path.name).symlink_to(path.readlink())


def freeze(mirror: Path, maker: ImagePublisher) -> None:
    maker.clock.now += 15 * DAY


def move_unsigned(mirror: Path, maker: ImagePublisher) -> None:
    """To an image that is signed and attested, and that this tag never named."""
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("2.0"), tags=("2.0",))
    point(mirror, "latest", resolved(repository, "2.0"))


def rot(mirror: Path, maker: ImagePublisher) -> None:
    held = maker.image("1.1").layers[1].blob
    path = mirror / "blobs" / "sha256" / held.digest.hex
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.chmod(0o644)
    path.unlink()
    path.write_bytes(data)


def strip_member(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    pair = (maker.image("1.2"), maker.image("1.2", architecture="arm64"))
    maker.publish(repository, *pair, tags=("1.2", "latest"))
    tag = f"sha256-{pair[1].digest.hex}.sig"
    repository.remove_tag(tag, resolved(repository, tag))


ATTACKS = (
    Attack("another product", "identity-mismatch", swap),
    Attack("an older digest is replayed", "tag-replayed", replay),
    Attack("frozen past its date", "tag-frozen", freeze),
    Attack("moved without a signed move", "tag-unsigned-move", move_unsigned),
    Attack("nothing signed of the tag", "tag-unsigned", unsign),
    Attack("a rotten layer", "blob-damaged", rot),
    Attack("an unsigned member of an index", "signature-missing", strip_member),
)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "copied to another host"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_verify_refuses_each_by_its_own_code(
    attack: Attack, elsewhere: bool, mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    identity = ExpectedIdentity(f"{HOST}/small") if elsewhere else ExpectedIdentity()
    attack.act(mirror, maker)
    place = mirror
    if elsewhere:
        place = tmp_path / "elsewhere"
        shutil.copytree(mirror, place, symlinks=True)
        marker = place / "relbuild-mirror.json"
        marker.write_text(marker.read_text().replace(HOST, "copy.example/all"))

    def look() -> Verified:
        return verify_reference(at(place), key().public, maker.build_env, identity=identity)

    assert code_of(look) == attack.code
    assert code_of(lambda: promote(at(place), "edge", key(), RULES, maker.build_env, identity=identity)) == attack.code
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    assert code_of(lambda: copy(at(place), target, key(), RULES, maker.build_env, identity=identity)) == attack.code


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "copied to another host"])
def test_what_nobody_attacked_verifies_here_and_elsewhere(
    elsewhere: bool, mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    place = mirror
    if elsewhere:
        place = tmp_path / "elsewhere"
        shutil.copytree(mirror, place, symlinks=True)
        (place / "relbuild-mirror.json").write_text(
            (mirror / "relbuild-mirror.json").read_text().replace(HOST, "copy.example/all")
        )
    identity = ExpectedIdentity(f"{HOST}/small") if elsewhere else ExpectedIdentity()
    for tag in ("latest", "1.0", "1.1", "stable"):
        found = verify_reference(at(place, f":{tag}"), key().public, maker.build_env, identity=identity)
        assert found.tag is not None and found.tag.identity == f"{HOST}/small" and not found.tag.stale


def test_what_is_stale_is_taken_where_that_is_wanted_and_it_is_said(mirror: Path, maker: ImagePublisher) -> None:
    maker.clock.now += 15 * DAY
    found = verify_reference(at(mirror), key().public, maker.build_env, allow_stale=True)
    assert found.tag is not None and found.tag.stale
    replay(mirror, maker)
    assert (
        code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env, allow_stale=True)) == "tag-replayed"
    )


def test_digests_and_tags_that_never_move_need_no_signed_move(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    maker.clock.now += 100 * DAY
    immutable = next(tag for tag in repository.tags() if tag.startswith("1.1-"))
    assert verify_reference(at(mirror, f":{immutable}"), key().public, maker.build_env).tag is None
    assert verify_reference(at(mirror, f"@{resolved(repository, 'latest')}"), key().public, maker.build_env).tag is None


def test_a_tag_that_only_looks_as_if_it_never_moved_needs_one(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    immutable = next(tag for tag in repository.tags() if tag.startswith("1.1-"))
    point(mirror, immutable, resolved(repository, "1.0"))
    assert (
        code_of(lambda: verify_reference(at(mirror, f":{immutable}"), key().public, maker.build_env)) == "tag-unsigned"
    )


def test_all_that_a_mirror_said_before_is_refused_by_whoever_saw_more(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(mirror, saved, symlinks=True)
    maker.publish(opened(mirror, maker), maker.image("1.2"))
    verify_reference(at(mirror), key().public, maker.build_env)
    shutil.rmtree(mirror)
    shutil.copytree(saved, mirror, symlinks=True)
    assert code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env)) == "moves-rolled-back"
    (tmp_path / "new").mkdir()
    verify_reference(
        at(mirror), key().public, ImagePublisher.at(tmp_path / "new").build_env
    )  # who never saw more cannot know
    # Its operator restored it: what they sign next is higher than what they ever signed.
    maker.publish(opened(mirror, maker), maker.image("1.1"))
    verify_reference(at(mirror), key().public, maker.build_env)


def test_what_others_sign_or_write_into_the_list_of_moves_is_passed_over(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    said = list_statements(repository, repository.identity, "latest")[0].statement
    other = resolved(repository, "1.0")
    for number in range(said.number + 1, said.number + 5):
        move = Move("latest", None, other, said.move.at, MoveCause.PUBLISH)
        write_statement(repository, replace(said, move=move, number=number), key(1))
    found = verify_reference(at(mirror), key().public, maker.build_env)
    assert found.tag is not None and found.tag.number == said.number
    point(mirror, "latest", other)
    assert code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env)) == "tag-replayed"


def test_a_move_of_one_tag_or_repository_says_nothing_of_another(mirror: Path, maker: ImagePublisher) -> None:
    """The list of another tag's moves under this tag's anchor."""
    repository = opened(mirror, maker)
    tags = mirror / "repositories" / "small" / "_tags"
    stable, latest = (f"sha256-{anchor_manifest(repository.identity, tag).digest.hex}" for tag in ("stable", "latest"))
    (tags / latest).unlink()
    (tags / latest).symlink_to((tags / stable).readlink())
    assert code_of(lambda: verify_reference(at(mirror), key().public, maker.build_env)) == "tag-unsigned"


@pytest.mark.costly
@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "fallback tag"])
def test_on_a_registry_it_is_the_same(api: bool, maker: ImagePublisher) -> None:
    with fake_registry(referrers=api, tag_deletion=api) as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        for version in ("1.0", "1.1"):
            maker.publish(repository, maker.image(version), tags=(version, "latest"))
        reference = parse_address(f"{repository.url}:latest")
        verify_reference(reference, key().public, maker.build_env)
        promote(reference, "stable", key(), RULES, maker.build_env)
        assert rollback(reference, None, key(), RULES, maker.build_env).digest == maker.image("1.0").digest
        verify_reference(reference, key().public, maker.build_env)
        assert [one.happened for one in read_history(repository, "latest")] == [True] * 3
        held = registry.held("ns/small")
        held.tags["latest"] = str(maker.image("1.1").digest)
        assert code_of(lambda: verify_reference(reference, key().public, maker.build_env)) == "tag-replayed"


def test_a_number_is_remembered_by_the_place_where_it_was_seen(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    memory = TagMemory(Store.open(tmp_path / "s"))
    one, other = Digest.of(b"one"), Digest.of(b"other")
    memory.see("dir:/a", "latest", one, 5)
    memory.see("dir:/a", "latest", one, 3)
    asked = [("dir:/a", "latest", one), ("dir:/a", "latest", other), ("dir:/a", "1", one), ("dir:/b", "latest", one)]
    assert [memory.seen(*each) for each in asked] == [5, 0, 0, 0]
    assert memory.seen("dir:/a", "latest", one, other) == memory.seen("dir:/a", "latest", other, one) == 5


def test_a_number_that_an_earlier_version_remembered_counts_for_every_key(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    store = Store.open(tmp_path / "s")
    store.remember(identity("tag-number", 1, repository="dir:/a", tag="latest"), 7)
    memory, one, other = TagMemory(store), Digest.of(b"one"), Digest.of(b"other")
    memory.see("dir:/a", "latest", one, 6)
    assert [memory.seen("dir:/a", "latest", key) for key in (one, other)] == [7, 7]
    memory.see("dir:/a", "latest", one, 8)
    assert [memory.seen("dir:/a", "latest", key) for key in (one, other)] == [8, 7]


def test_what_is_no_statement_is_refused_or_passed_over(mirror: Path, maker: ImagePublisher) -> None:
    repository = opened(mirror, maker)
    subject = anchor_manifest(repository.identity, "latest")
    note = mirror_images.speaks_of(subject.descriptor, "nothing", "application/vnd.dev.sigstore.bundle.v0.3+json")
    repository.put_blob(mirror_images.EMPTY, b"{}")
    repository.attach(note)
    verify_reference(at(mirror), key().public, maker.build_env)
