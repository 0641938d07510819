"""A tag is believed by its newest signed move: what was replayed, frozen, or moved by nobody who signs is refused, each
by its own code, here and on a mirror that was copied elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.address import Address
from pipeline.mirror.addresses import parse_address
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.directory_prune import prune_directory
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.history import earlier, read_history
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import (
    KEPT,
    NUMBER_LIMIT,
    UNDER_WAY,
    TagMemory,
    TagSigner,
    anchor,
    list_statements,
    write_statement,
)
from pipeline.mirror.verification import Verified
from pipeline.model.publication import Move, Why
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.release import copy, promote, rollback, verify
from pipeline.store import Store
from tests.unit import mirrored
from tests.unit.old_records import write_down
from tests.unit.published import RULES, Maker, key
from tests.unit.registry.contents import open_mirror
from tests.unit.registry_fake import fake_registry

DAY = 86_400.0
HOST = "registry.example/prod"


def opened(mirror: Path, maker: Maker, name: str = "small") -> DirectoryRepository:
    return open_directory(mirror, create=True, clock=maker.clock, host=HOST).repository(name)


@pytest.fixture
def mirror(tmp_path: Path, maker: Maker) -> Path:
    """Two versions, one after the other; `stable` is the first."""
    repository = opened(tmp_path / "mirror", maker)
    maker.publish(repository, maker.image("1.0"), tags=("1.0", "latest"))
    promote(at(tmp_path / "mirror"), "stable", key(), RULES, maker.workshop)
    maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
    return tmp_path / "mirror"


def at(mirror: Path, reference: str = ":latest", name: str = "small") -> Address:
    return parse_address(f"dir:{mirror}/{name}{reference}")


def resolved(repository: Repository, tag: str) -> Digest:
    found = repository.resolve(tag)
    assert found is not None
    return found


def point(mirror: Path, tag: str, digest: Digest) -> None:
    """What one does who can write to the mirror, and cannot sign."""
    link = mirror / "repositories" / "small" / "_tags" / tag
    kind = next(iter((mirror / "repositories" / "small" / "_manifests").glob(f"{digest.hex}.*"))).name
    link.unlink(missing_ok=True)
    link.symlink_to(f"../_manifests/{kind}")


def published_files(mirror: Path) -> dict[str, bytes | str]:
    """What people see of a mirror: not what it notes of blobs that were read."""
    return {name: data for name, data in mirrored.all_files(mirror).items() if not name.startswith(".scrub")}


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(RelbuildError) as caught:
        act()
    return caught.value.code


# --- what is refused, with its code, here and on a copy elsewhere ----------------------------------------


@dataclass(frozen=True)
class Attack:
    """Something done to a mirror by one who cannot sign, or time that passed; and the code that tells of it."""

    name: str
    code: str
    act: Callable[[Path, Maker], None]


def swap(mirror: Path, maker: Maker) -> None:
    maker.publish(opened(mirror, maker, "other"), maker.image("9.0", "other"))
    theirs, ours = (mirror / "repositories" / name for name in ("other", "small"))
    for path in (theirs / "_manifests").iterdir():
        shutil.copy(path, ours / "_manifests" / path.name)
    for path in (theirs / "_tags").iterdir():
        (ours / "_tags" / path.name).unlink(missing_ok=True)
        (ours / "_tags" / path.name).symlink_to(path.readlink())


def replay(mirror: Path, maker: Maker) -> None:
    point(mirror, "latest", resolved(opened(mirror, maker), "1.0"))


def freeze(mirror: Path, maker: Maker) -> None:
    maker.clock.now += 15 * DAY


def move_unsigned(mirror: Path, maker: Maker) -> None:
    """To an image that is signed and attested, and that this tag never named."""
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("2.0"), tags=("2.0",))
    point(mirror, "latest", resolved(repository, "2.0"))


def unsign(mirror: Path, maker: Maker) -> None:
    (mirror / "repositories" / "small" / "_tags" / f"sha256-{anchor(f'{HOST}/small', 'latest').digest.hex}").unlink()


def rot(mirror: Path, maker: Maker) -> None:
    held = maker.image("1.1").layers[1].blob
    path = mirror / "blobs" / "sha256" / held.digest.hex
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.chmod(0o644)
    path.unlink()
    path.write_bytes(data)


def strip_member(mirror: Path, maker: Maker) -> None:
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
    attack: Attack, elsewhere: bool, mirror: Path, maker: Maker, tmp_path: Path
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
        return verify(at(place), key().public, maker.workshop, identity=identity)

    assert code_of(look) == attack.code
    assert code_of(lambda: promote(at(place), "edge", key(), RULES, maker.workshop, identity=identity)) == attack.code
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    assert code_of(lambda: copy(at(place), target, key(), RULES, maker.workshop, identity=identity)) == attack.code


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "copied to another host"])
def test_what_nobody_attacked_verifies_here_and_elsewhere(
    elsewhere: bool, mirror: Path, maker: Maker, tmp_path: Path
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
        found = verify(at(place, f":{tag}"), key().public, maker.workshop, identity=identity)
        assert found.tag is not None and found.tag.identity == f"{HOST}/small" and not found.tag.stale


def test_what_is_stale_is_taken_where_that_is_wanted_and_it_is_said(mirror: Path, maker: Maker) -> None:
    maker.clock.now += 15 * DAY
    found = verify(at(mirror), key().public, maker.workshop, allow_stale=True)
    assert found.tag is not None and found.tag.stale
    replay(mirror, maker)
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop, allow_stale=True)) == "tag-replayed"


def test_digests_and_tags_that_never_move_need_no_signed_move(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    maker.clock.now += 100 * DAY
    immutable = next(tag for tag in repository.tags() if tag.startswith("1.1-"))
    assert verify(at(mirror, f":{immutable}"), key().public, maker.workshop).tag is None
    assert verify(at(mirror, f"@{resolved(repository, 'latest')}"), key().public, maker.workshop).tag is None


def test_a_tag_that_only_looks_as_if_it_never_moved_needs_one(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    immutable = next(tag for tag in repository.tags() if tag.startswith("1.1-"))
    point(mirror, immutable, resolved(repository, "1.0"))
    assert code_of(lambda: verify(at(mirror, f":{immutable}"), key().public, maker.workshop)) == "tag-unsigned"


def test_all_that_a_mirror_said_before_is_refused_by_whoever_saw_more(
    mirror: Path, maker: Maker, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(mirror, saved, symlinks=True)
    maker.publish(opened(mirror, maker), maker.image("1.2"))
    verify(at(mirror), key().public, maker.workshop)
    shutil.rmtree(mirror)
    shutil.copytree(saved, mirror, symlinks=True)
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop)) == "moves-rolled-back"
    (tmp_path / "new").mkdir()
    verify(at(mirror), key().public, Maker.at(tmp_path / "new").workshop)  # who never saw more cannot know
    # Its keeper restored it: what he signs next is higher than what he ever signed.
    maker.publish(opened(mirror, maker), maker.image("1.1"))
    verify(at(mirror), key().public, maker.workshop)


def test_what_others_sign_or_write_into_the_list_of_moves_is_passed_over(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    said = list_statements(repository, repository.identity, "latest")[0].statement
    other = resolved(repository, "1.0")
    for number in range(said.number + 1, said.number + 5):
        move = Move("latest", None, other, said.move.at, Why.PUBLISH)
        write_statement(repository, replace(said, move=move, number=number), key(1))
    found = verify(at(mirror), key().public, maker.workshop)
    assert found.tag is not None and found.tag.number == said.number
    point(mirror, "latest", other)
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop)) == "tag-replayed"


def test_a_move_of_one_tag_or_repository_says_nothing_of_another(mirror: Path, maker: Maker) -> None:
    """The list of another tag's moves under this tag's anchor."""
    repository = opened(mirror, maker)
    tags = mirror / "repositories" / "small" / "_tags"
    stable, latest = (f"sha256-{anchor(repository.identity, tag).digest.hex}" for tag in ("stable", "latest"))
    (tags / latest).unlink()
    (tags / latest).symlink_to((tags / stable).readlink())
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop)) == "tag-unsigned"


# --- lists stay short, and out of the way ----------------------------------------------------------------


def test_nothing_stands_in_the_list_of_tags_but_what_is_pulled_and_one_list_for_each_tag(
    mirror: Path, maker: Maker
) -> None:
    repository = opened(mirror, maker)
    assert not [tag for tag in repository.tags() if tag.startswith("move.")]
    pulled = [tag for tag in repository.tags() if not is_auxiliary(tag)]
    assert {"1.0", "1.1", "latest", "stable"} == {tag for tag in pulled if "-" not in tag}
    with fake_registry() as registry, open_mirror(registry) as opened_registry:
        app = opened_registry.repository("app")
        maker.publish(app, maker.image("1.0", "app"))
        assert all(not is_auxiliary(tag) or tag.endswith(".sig") for tag in app.tags())


def test_publishing_and_promoting_the_same_again_touches_nothing(mirror: Path, maker: Maker) -> None:
    before = published_files(mirror)
    maker.clock.now += 3600
    maker.publish(opened(mirror, maker), maker.image("1.1"), tags=("1.1", "latest"))
    promote(at(mirror, ":stable"), "stable", key(), RULES, maker.workshop)
    assert published_files(mirror) == before


def test_renewals_replace_one_another_and_are_no_history(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    moves = len(read_history(repository, "latest"))
    numbers = []
    for _ in range(8):
        maker.clock.now += 5 * DAY
        maker.publish(repository, maker.image("1.1"), tags=("1.1", "latest"))
        found = verify(at(mirror), key().public, maker.workshop)
        assert found.tag is not None
        numbers.append(found.tag.number)
    assert numbers == sorted(set(numbers))
    listed = list_statements(repository, repository.identity, "latest")
    assert len([one for one in listed if one.statement.renews]) == 1
    assert len(read_history(repository, "latest")) == moves


def test_a_renewal_wants_the_tag_to_stand_where_it_says(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    replay(mirror, maker)
    signed_tag = SignedTag(repository, repository.identity, "latest", TagSigner(key(), maker.clock))
    before = list_statements(repository, repository.identity, "latest")
    assert not signed_tag.settle(maker.image("1.1").digest, "1.1", Why.PUBLISH)
    assert list_statements(repository, repository.identity, "latest") == before


def test_a_list_of_thousands_of_moves_is_cut_at_its_old_end(
    tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT * 1000 < 4 << 20
    monkeypatch.setattr("pipeline.mirror.tag_statements.KEPT", 5)
    repository = opened(tmp_path / "mirror", maker)
    for number in range(12):
        maker.clock.now += UNDER_WAY / 1000
        maker.publish(repository, maker.image(f"1.{number % 3}"))
    listed = list_statements(repository, repository.identity, "latest")
    assert len([one for one in listed if not one.statement.renews]) <= 6
    past = read_history(repository, "latest")
    assert 5 <= len(past) <= 6 and all(one.happened for one in past)
    verify(at(tmp_path / "mirror"), key().public, maker.workshop)


def test_what_is_young_or_another_signed_is_not_tidied_away(mirror: Path, maker: Maker) -> None:
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


def test_pruning_leaves_what_is_signed_of_tags(mirror: Path, maker: Maker) -> None:
    root = open_directory(mirror, create=False, clock=maker.clock)
    rules = MirrorRules(retention=(RetentionRule(tags="1.0*", keep=0),), grace=0)
    prune_directory(root, rules, int(maker.clock() + 1000 * DAY))
    for tag in ("latest", "stable"):
        verify(at(mirror, f":{tag}"), key().public, maker.workshop)
    assert len(read_history(opened(mirror, maker), "latest")) == 2


# --- killed, and at the same time ------------------------------------------------------------------------


class Killed(BaseException):
    """What stands for SIGKILL."""


@pytest.mark.parametrize("step", ["attach", "point", "pointed", "settled"])
def test_a_publisher_that_is_killed_leaves_a_tag_that_verifies(
    step: str, mirror: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the move is signed, after it was made, and before that was signed."""
    repository = opened(mirror, maker)
    before, after = resolved(repository, "latest"), maker.image("1.2").digest
    with monkeypatch.context() as patched:
        _kill(patched, step)
        with pytest.raises(Killed):
            maker.publish(repository, maker.image("1.2"))
    stands = after if step in ("pointed", "settled") else before
    found = verify(at(mirror), key().public, maker.workshop)
    assert found.held.digest == stands
    rolled = [one.move.after for one in read_history(repository, "latest") if one.happened]
    assert rolled[-1] == stands
    maker.publish(repository, maker.image("1.2"))
    assert verify(at(mirror), key().public, maker.workshop).held.digest == after
    made = [one.move for one in read_history(repository, "latest") if one.happened]
    assert [move.after for move in made] == [maker.image(version).digest for version in ("1.0", "1.1", "1.2")]
    replay(mirror, maker)
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop)) == "tag-replayed"


def _kill(patched: pytest.MonkeyPatch, step: str) -> None:
    point, attach = DirectoryRepository.point, DirectoryRepository.attach
    pointed = []

    def pointing(self: DirectoryRepository, tag: str, *rest: object) -> None:
        if tag == "latest" and step == "point":
            raise Killed
        point(self, tag, *rest)  # type: ignore[arg-type]
        if tag == "latest":
            pointed.append(tag)
            if step == "pointed":
                raise Killed

    def attaching(self: DirectoryRepository, manifest: object) -> bool:
        if b"org.relbuild.move." in manifest.data and (step == "attach" or (pointed and step == "settled")):  # type: ignore[attr-defined]
            raise Killed
        return attach(self, manifest)  # type: ignore[arg-type]

    patched.setattr(DirectoryRepository, "point", pointing)
    patched.setattr(DirectoryRepository, "attach", attaching)


def test_of_two_who_sign_a_move_from_the_same_place_one_is_told_as_made(mirror: Path, maker: Maker) -> None:
    """The other signs his move first, and finds the tag moved when he comes to it."""
    repository = opened(mirror, maker)
    signer = TagSigner(key(), maker.clock)
    before = resolved(repository, "latest")
    late = maker.image("1.3").digest
    SignedTag(repository, repository.identity, "latest", signer).announce(
        Move("latest", before, late, signer.now, Why.PUBLISH, "1.3")
    )
    maker.publish(repository, maker.image("1.2"))
    verify(at(mirror), key().public, maker.workshop)
    told = [(one.move.version, one.happened) for one in read_history(repository, "latest")]
    assert told == [("1.0", True), ("1.1", True), ("1.3", False), ("1.2", True)]
    assert earlier(read_history(repository, "latest"))[0] == before


def test_of_two_who_sign_the_same_move_at_once_it_counts_once(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    signer = TagSigner(key(), maker.clock)
    move = Move("latest", resolved(repository, "latest"), maker.image("1.2").digest, signer.now, Why.PUBLISH, "1.2")
    SignedTag(repository, repository.identity, "latest", signer).announce(move)
    maker.publish(repository, maker.image("1.2"))
    past = read_history(repository, "latest")
    assert [one.move.version for one in past] == ["1.0", "1.1", "1.2", "1.2"]
    assert [one.move.version for one in past if one.happened] == ["1.0", "1.1", "1.2"]
    assert rollback(at(mirror), None, key(), RULES, maker.workshop).digest == maker.image("1.1").digest


def test_numbers_that_nobody_signed_leave_room_to_grow(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    said = list_statements(repository, repository.identity, "latest")[0].statement
    for number in (NUMBER_LIMIT, NUMBER_LIMIT // 2):
        write_statement(repository, replace(said, number=number), key(1))
    for version in ("1.2", "1.3"):
        maker.publish(repository, maker.image(version))
        assert verify(at(mirror), key().public, maker.workshop).held.version == version


# --- a clock that goes backwards -------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_neither_history_nor_rolling_back(mirror: Path, maker: Maker) -> None:
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
        moved = rollback(at(mirror), None, key(), RULES, maker.workshop)
        assert moved.digest == maker.image(version).digest
    assert code_of(lambda: rollback(at(mirror), None, key(), RULES, maker.workshop)) == "history-empty"
    verify(at(mirror), key().public, maker.workshop)


def test_old_records_are_told_in_their_order_though_a_clock_went_back(tmp_path: Path, maker: Maker) -> None:
    repository = opened(tmp_path / "mirror", maker)
    digests = [maker.image(version).digest for version in ("1.0", "1.1", "1.2")]
    for number, (before, after) in enumerate(zip((None, *digests), digests, strict=False)):
        write_down(
            repository, Move("latest", before, after, int((1_800_000_000 - number * 6 * DAY) * 1000), Why.PUBLISH)
        )
    mirrored.publish(repository, maker.store, maker.image("1.2"), "latest")
    past = read_history(repository, "latest")
    assert [(one.move.after, one.happened, one.signed) for one in past] == [(one, True, False) for one in digests]


# --- mirrors that are older than signed moves ------------------------------------------------------------


def test_a_mirror_with_old_records_goes_on_with_signed_moves(tmp_path: Path, maker: Maker) -> None:
    mirror = tmp_path / "mirror"
    repository = opened(mirror, maker)
    maker.publish(repository, maker.image("1.0"))
    old = maker.image("1.0").digest
    unsign(mirror, maker)
    write_down(repository, Move("latest", None, old, 1_700_000_000_000, Why.PUBLISH, "1.0"))
    assert code_of(lambda: verify(at(mirror), key().public, maker.workshop)) == "tag-unsigned"
    maker.publish(repository, maker.image("1.1"))
    verify(at(mirror), key().public, maker.workshop)
    past = read_history(repository, "latest")
    assert [(one.move.version, one.happened, one.signed) for one in past] == [("1.0", True, False), ("1.1", True, True)]
    assert rollback(at(mirror), None, key(), RULES, maker.workshop).digest == old
    assert not [tag for tag in repository.tags() if tag.startswith("move.") and tag.count("1.1")]


def test_a_tag_that_nobody_signed_is_signed_by_promoting_what_it_points_to(mirror: Path, maker: Maker) -> None:
    unsign(mirror, maker)
    digest = resolved(opened(mirror, maker), "latest")
    promote(at(mirror, f"@{digest}"), "latest", key(), RULES, maker.workshop)
    verify(at(mirror), key().public, maker.workshop)


# --- copies ----------------------------------------------------------------------------------------------


def test_a_copy_with_the_private_key_is_signed_under_its_own_name(mirror: Path, maker: Maker, tmp_path: Path) -> None:
    opened_there = open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example")
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    copy(at(mirror, ""), target, key(), RULES, maker.workshop)
    for tag in ("latest", "stable", "1.0"):
        found = verify(parse_address(f"{target.url}:{tag}"), key().public, maker.workshop)
        assert found.identities == ("inside.example/small",)
    before = published_files(tmp_path / "there")
    copy(at(mirror, ""), target, key(), RULES, maker.workshop)
    assert published_files(tmp_path / "there") == before
    assert opened_there.repository("small").resolve("latest") == maker.image("1.1").digest


def test_a_copy_with_the_public_key_carries_what_was_signed_and_is_a_mirror(
    mirror: Path, maker: Maker, tmp_path: Path
) -> None:
    open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example")
    target = parse_address(f"dir:{tmp_path / 'there'}/small")
    identity = ExpectedIdentity(f"{HOST}/small")
    copy(at(mirror), target, key().public, RULES, maker.workshop)
    there = parse_address(f"{target.url}:latest")
    assert code_of(lambda: verify(there, key().public, maker.workshop)) == "identity-mismatch"
    assert verify(there, key().public, maker.workshop, identity=identity).tag is not None
    maker.publish(opened(mirror, maker), maker.image("1.2"))
    copy(at(mirror), target, key().public, RULES, maker.workshop)
    verify(there, key().public, maker.workshop, identity=identity)
    assert (
        code_of(lambda: copy(at(mirror), parse_address(f"{target.url}:edge"), key().public, RULES, maker.workshop))
        == "key-not-private"
    )


def test_what_is_carried_in_a_layout_is_believed_by_its_signed_moves(
    mirror: Path, maker: Maker, tmp_path: Path
) -> None:
    disk = parse_address(f"oci:{tmp_path / 'disk'}")
    copy(at(mirror, ""), disk, key().public, RULES, maker.workshop)
    latest = parse_address(f"{disk.url}:latest")
    assert verify(latest, key().public, maker.workshop).tag is not None
    target = parse_address(f"dir:{tmp_path / 'inside'}/small")
    copy(disk, target, key().public, RULES, maker.workshop)
    identity = ExpectedIdentity(f"{HOST}/small")
    verify(parse_address(f"{target.url}:stable"), key().public, maker.workshop, identity=identity)
    maker.clock.now += 15 * DAY
    assert code_of(lambda: verify(latest, key().public, maker.workshop)) == "tag-frozen"


# --- on registries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "fallback tag"])
def test_on_a_registry_it_is_the_same(api: bool, maker: Maker) -> None:
    with fake_registry(referrers=api, tag_deletion=api) as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        for version in ("1.0", "1.1"):
            maker.publish(repository, maker.image(version), tags=(version, "latest"))
        reference = parse_address(f"{repository.url}:latest")
        verify(reference, key().public, maker.workshop)
        promote(reference, "stable", key(), RULES, maker.workshop)
        assert rollback(reference, None, key(), RULES, maker.workshop).digest == maker.image("1.0").digest
        verify(reference, key().public, maker.workshop)
        assert [one.happened for one in read_history(repository, "latest")] == [True] * 3
        held = registry.held("ns/small")
        held.tags["latest"] = str(maker.image("1.1").digest)
        assert code_of(lambda: verify(reference, key().public, maker.workshop)) == "tag-replayed"


def test_a_number_is_remembered_by_the_place_where_it_was_seen(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    memory = TagMemory(Store.open(tmp_path / "s"))
    memory.see("dir:/a", "latest", 5)
    memory.see("dir:/a", "latest", 3)
    assert [memory.seen("dir:/a", "latest"), memory.seen("dir:/a", "1"), memory.seen("dir:/b", "latest")] == [5, 0, 0]


def test_what_is_no_statement_is_refused_or_passed_over(mirror: Path, maker: Maker) -> None:
    repository = opened(mirror, maker)
    subject = anchor(repository.identity, "latest")
    note = mirrored.speaks_of(subject.descriptor, "nothing", "application/vnd.dev.sigstore.bundle.v0.3+json")
    repository.put_blob(mirrored.EMPTY, b"{}")
    repository.attach(note)
    verify(at(mirror), key().public, maker.workshop)
