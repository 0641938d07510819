"""What a writer without a key plants in a directory ends no command, and loses nothing that was published."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import CHUNK, Digest
from pipeline.errors import RelbuildError, VerificationError
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.backends.directory.directory_prune import prune_directory
from pipeline.mirror.references import fallback_tag
from pipeline.mirror.tag_statements import anchor_manifest
from pipeline.model.image import Descriptor
from pipeline.model.rules import MirrorRules
from pipeline.model.scrub import DamageKind, RepairOutcome, ScrubbedObject
from pipeline.oci import bundle_layer, media_types, signature_tag
from pipeline.release import history, verify_reference
from pipeline.store import Store
from tests.support.moved_tags import DAY, at, code_of, opened
from tests.support.published_images import ImagePublisher, key
from tests.unit.mirror.directory.test_reuse import rotten
from tests.unit.mirror.directory.test_scrub import scrub, told

INDEX = f'{{"schemaVersion":2,"mediaType":"{media_types.INDEX}","manifests":'
ENTRY = f'{{"mediaType":"{media_types.MANIFEST}","digest":"sha256:{"b" * 64}","size":5'
MALFORMED = {
    "no text": b"\xff\x00",
    "no object": b"7",
    "deep": (INDEX + "[" * 20_000 + "]" * 20_000 + "}").encode(),
    "no list": (INDEX + "{}}").encode(),
    "a number in an annotation": f'{INDEX}[{ENTRY},"annotations":{{"a":5}}}}]}}'.encode(),
    "a bad digest": (INDEX + '[{"mediaType":"x","digest":"sha256:zz","size":1}]}').encode(),
    "a negative size": f"{INDEX}[{ENTRY.replace('5', '-1')}}}]}}".encode(),
    "a huge size": f"{INDEX}[{ENTRY.replace('5', '9' * 400)}}}]}}".encode(),
    "half a character": f'{INDEX}[{ENTRY},"annotations":{{"a":"\\ud800"}}}}]}}'.encode(),
    "too long": (INDEX + "[]}").encode() + b" " * (4 << 20),
}


def plant(root: Path, data: bytes, *tags: str, kind: str = "oci-index") -> Digest:
    """Put a document as a manifest, and point tags at it."""
    digest = Digest.of(data)
    repository = root / "repositories" / "small"
    (repository / "_manifests" / f"{digest.hex}.{kind}").write_bytes(data)
    for tag in tags:
        (repository / "_tags" / tag).unlink(missing_ok=True)
        (repository / "_tags" / tag).symlink_to(f"../_manifests/{digest.hex}.{kind}")
    return digest


def version(root: Path, maker: ImagePublisher) -> str:
    return verify_reference(at(root), key().public, maker.build_env).held.version


def prune(mirror: DirectoryMirror, now: float, rules: MirrorRules | None = None) -> tuple[str, ...]:
    return prune_directory(mirror, rules or MirrorRules(), int(now)).plan.notes


@pytest.mark.parametrize("form", MALFORMED)
@pytest.mark.parametrize("about", ["tag", "image"])
def test_a_malformed_list_of_referrers_ends_nothing_and_is_made_anew(
    root: Path, maker: ImagePublisher, form: str, about: str
) -> None:
    repository = opened(root, maker)
    subject = maker.image("1.0").digest if about == "image" else anchor_manifest(repository.identity, "latest").digest
    before = repository.referrers(subject)
    plant(root, MALFORMED[form], fallback_tag(subject))
    assert repository.referrers(subject) == before
    assert version(root, maker) == "1.0"
    assert len(history(at(root), maker.build_env, key().public)) == 1
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert version(root, maker) == "1.1"
    done = scrub(opened(root, maker).mirror, maker.store)
    assert not done.lost or form == "too long"  # other bytes than its digest promises
    assert {one.descriptor.digest for one in before} <= {
        one.descriptor.digest for one in opened(root, maker).paths.listed_referrers(subject) or ()
    }
    assert not scrub(opened(root, maker).mirror, maker.store).findings


@pytest.mark.parametrize("form", MALFORMED)
def test_scrub_makes_a_malformed_list_of_referrers_anew_and_puts_it_aside(
    root: Path, maker: ImagePublisher, form: str
) -> None:
    mirror = opened(root, maker).mirror
    before = opened(root, maker).resolve(fallback_tag(maker.image("1.0").digest))
    plant(root, MALFORMED[form], fallback_tag(maker.image("1.0").digest))
    done = scrub(mirror, maker.store)
    assert (ScrubbedObject.REFERRERS, DamageKind.OUTDATED, RepairOutcome.HEALED) in told(done) and not done.lost
    assert len(rotten(root)) == 1
    assert opened(root, maker).resolve(fallback_tag(maker.image("1.0").digest)) == before
    assert not scrub(mirror, maker.store).findings


@pytest.mark.parametrize("form", [form for form in MALFORMED if form != "too long"])
def test_prune_tells_of_a_malformed_manifest_and_goes_on(root: Path, maker: ImagePublisher, form: str) -> None:
    mirror = opened(root, maker).mirror
    digest = plant(root, MALFORMED[form])
    (note,) = prune(mirror, maker.clock.now)
    assert note == f"small@{digest} is malformed, so nobody published it: `relbuild scrub` tells of it"
    assert told(scrub(mirror, maker.store)) == {(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, RepairOutcome.ASIDE)}
    assert prune(mirror, maker.clock.now) == () and version(root, maker) == "1.0"


def test_a_malformed_manifest_that_is_old_is_pruned_and_comes_back(root: Path, maker: ImagePublisher) -> None:
    mirror = opened(root, maker).mirror
    digest = plant(root, b"\xff", kind="oci-image")
    result = prune_directory(mirror, MirrorRules(grace=0), int(maker.clock.now + 9 * DAY))
    assert digest in {one.digest for one in result.plan.manifests}
    assert mirror.restore(result.stamp).manifests == len(result.plan.manifests)
    assert opened(root, maker).has_manifest(digest)


def test_a_name_with_another_media_type_hides_no_manifest(root: Path, maker: ImagePublisher) -> None:
    """Of an image that is listed as an index the layers would be unused."""
    mirror = opened(root, maker).mirror
    folder = root / "repositories" / "small" / "_manifests"
    image = maker.image("1.0").digest
    shutil.copy(folder / f"{image.hex}.oci-image", folder / f"{image.hex}.oci-index")
    held = {one.digest: one for one in mirror.inventory().repositories[0].manifests}[image]
    assert held.media_type == media_types.MANIFEST and held.blobs
    assert told(scrub(mirror, maker.store)) == {(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, RepairOutcome.ASIDE)}
    assert not (folder / f"{image.hex}.oci-index").exists() and version(root, maker) == "1.0"


def test_malformed_signatures_are_told_replaced_and_removed(root: Path, maker: ImagePublisher) -> None:
    tag = signature_tag(maker.image("1.0").digest)
    for heal in ("publish", "scrub"):
        plant(root, MALFORMED["a bad digest"], tag, kind="oci-image")
        with pytest.raises(RelbuildError) as caught:
            version(root, maker)
        problem = caught.value.problems[0]
        assert (problem.code, (problem.place or "").endswith(tag)) == ("document-malformed", True)
        assert "publish it again" in (problem.hint or "")
        if heal == "scrub":
            done = scrub(opened(root, maker).mirror, maker.store)
            assert told(done) == {(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, RepairOutcome.LOST)}
        maker.publish(opened(root, maker), maker.image("1.0"))
        assert version(root, maker) == "1.0"


def test_a_malformed_manifest_to_which_a_tag_leads_is_told_and_left_with_what_it_names(
    root: Path, maker: ImagePublisher
) -> None:
    named = Digest.of(b"named")
    (root / "blobs" / "sha256" / named.hex).write_bytes(b"named")
    planted = plant(root, MALFORMED["no list"].replace(b"{}", f'"{named}"'.encode()), "latest", "other")
    mirror = opened(root, maker).mirror
    assert [one.name for one in scrub(mirror, maker.store).lost] == [str(planted)]
    assert opened(root, maker).resolve("latest") == planted
    prune(mirror, maker.clock.now + 9 * DAY, MirrorRules(grace=0))
    assert opened(root, maker).resolve("latest") == planted and opened(root, maker).has_blob(named)
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert version(root, maker) == "1.1"
    opened(root, maker).paths.drop("other")
    assert not scrub(mirror, maker.store).lost and not scrub(mirror, maker.store).findings


def test_a_list_that_leads_nowhere_and_has_nothing_to_list_is_put_aside(root: Path, maker: ImagePublisher) -> None:
    name = f"sha256-{'c' * 64}"
    plant(root, MALFORMED["deep"], name)
    mirror = opened(root, maker).mirror
    assert (ScrubbedObject.TAG, DamageKind.ROTTEN, RepairOutcome.ASIDE) in told(scrub(mirror, maker.store))
    assert name not in opened(root, maker).tags() and not scrub(mirror, maker.store).findings


def folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


PLANTED: dict[str, Callable[[Path], object]] = {"a folder": folder, "a FIFO": os.mkfifo, "a file": Path.touch}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("where", ["_tags/sha256-" + "c" * 64, "_tags/latest", "_tags/list", "_tags.json"])
def test_what_is_no_tag_and_no_list_ends_nothing(root: Path, maker: ImagePublisher, kind: str, where: str) -> None:
    repository = opened(root, maker)
    subject = maker.image("1.0").digest
    path = root / "repositories" / "small" / where.replace("list", fallback_tag(subject))
    path.unlink(missing_ok=True)
    PLANTED[kind](path)
    if where == "_tags/latest":
        assert code_of(lambda: prune(repository.mirror, maker.clock.now)) == "tag-damaged"
    else:
        prune(repository.mirror, maker.clock.now)
    repository.referrers(subject)
    scrub(repository.mirror, maker.store)
    assert not scrub(repository.mirror, maker.store).findings
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert version(root, maker) == "1.1"
    assert len(repository.referrers(subject)) == 5


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("where", ["_tags/latest", "_tags/list", "_tags.json"])
def test_what_is_no_tag_and_no_list_is_replaced_by_a_publication(
    root: Path, maker: ImagePublisher, kind: str, where: str
) -> None:
    path = root / "repositories" / "small" / where.replace("list", fallback_tag(maker.image("1.0").digest))
    path.unlink(missing_ok=True)
    PLANTED[kind](path)
    maker.publish(opened(root, maker), maker.image("1.0"))
    if where == "_tags/list":  # of which nothing was missing: scrub makes it anew
        scrub(opened(root, maker).mirror, maker.store)
    assert path.is_symlink() or (where == "_tags.json" and path.is_file())
    assert version(root, maker) == "1.0"


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_no_manifest_is_told_with_its_place_and_healed(root: Path, maker: ImagePublisher, kind: str) -> None:
    repository = opened(root, maker)
    path = root / "repositories" / "small" / "_manifests" / f"{'d' * 64}.oci-image"
    PLANTED[kind](path)
    with pytest.raises(RelbuildError) as caught:
        prune(repository.mirror, maker.clock.now)
    assert caught.value.problems[0].place == str(path) and "scrub" in (caught.value.problems[0].hint or "")
    assert version(root, maker) == "1.0"
    scrub(repository.mirror, maker.store)
    assert prune(repository.mirror, maker.clock.now) == ()


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


IN_PLACE_OF_BLOBS = {
    "a folder": folder,
    "a FIFO": os.mkfifo,
    "an endless device": endless,
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", IN_PLACE_OF_BLOBS)
@pytest.mark.parametrize("what", ["layer", "attestation"])
def test_what_is_no_blob_is_told_at_once_and_healed_by_a_publication(
    root: Path, maker: ImagePublisher, kind: str, what: str
) -> None:
    """Without waiting for a FIFO, or reading without end."""
    repository, image = opened(root, maker), maker.image("1.0")
    digest = image.layers[0].blob.digest
    if what == "attestation":
        manifest = repository.manifest(repository.referrers(image.digest)[0].descriptor.digest)
        assert manifest is not None
        digest = bundle_layer(manifest).digest
    path = root / "blobs" / "sha256" / digest.hex
    path.unlink()
    IN_PLACE_OF_BLOBS[kind](path)
    with pytest.raises(RelbuildError) as caught:
        version(root, maker)
    problem = caught.value.problems[0]
    assert problem.code in {"blob-damaged", "digest-mismatch", "blob-missing"} and problem.place == str(path)
    assert "relbuild scrub" in (problem.hint or "")
    assert not repository.has_blob(digest) or kind == "nothing"
    with pytest.raises(VerificationError):
        repository.fetch_blob(Descriptor("application/octet-stream", digest, 1), Store(root.parent / "other"))
    maker.publish(opened(root, maker), image)
    assert version(root, maker) == "1.0"
    assert not scrub(repository.mirror, maker.store).findings


def test_a_layer_that_grew_is_read_no_further_than_it_should_be(root: Path, maker: ImagePublisher) -> None:
    blob = maker.image("1.0").layers[0].blob
    read: list[int] = []
    with (root / "blobs" / "sha256" / blob.digest.hex).open("r+b") as file:
        file.truncate(50 << 20)
    with pytest.raises(VerificationError, match="blob-damaged"):
        opened(root, maker).check_blob(blob, read.append)
    assert sum(read) <= CHUNK


@pytest.mark.parametrize("kind", PLANTED)
def test_a_list_whose_manifest_is_no_file_is_looked_up_and_made_anew(
    root: Path, maker: ImagePublisher, kind: str
) -> None:
    repository, subject = opened(root, maker), maker.image("1.0").digest
    before, target = repository.referrers(subject), repository.resolve(fallback_tag(subject))
    assert target is not None
    path = root / "repositories" / "small" / "_manifests" / f"{target.hex}.oci-index"
    path.unlink()
    assert repository.referrers(subject) == before
    PLANTED[kind](path)
    assert repository.referrers(subject) == before and version(root, maker) == "1.0"
    maker.publish(opened(root, maker), maker.image("1.0"))
    assert not scrub(repository.mirror, maker.store).lost
    assert opened(root, maker).paths.listed_referrers(subject) == before


def test_a_repository_without_manifests_ends_no_pruning(root: Path, maker: ImagePublisher) -> None:
    (root / "repositories" / "empty" / "_tags").mkdir(parents=True)
    mirror = opened(root, maker).mirror
    assert prune(mirror, maker.clock.now) == ()
    assert not scrub(mirror, maker.store).lost


def test_a_planted_folder_leaves_quarantine_with_its_age(root: Path, maker: ImagePublisher) -> None:
    mirror = opened(root, maker).mirror
    folder(root / "repositories" / "small" / "_tags" / "planted")
    scrub(mirror, maker.store)
    assert [path.is_dir() for path in (root / ".quarantine" / "rotten").iterdir()] == [True]
    prune(mirror, maker.clock.now + 99 * DAY, MirrorRules(quarantine=0))
    assert not list((root / ".quarantine" / "rotten").iterdir())


@pytest.mark.parametrize("where", [".quarantine", ".quarantine/rotten"])
def test_nothing_is_deleted_where_a_link_in_the_place_of_quarantine_leads(
    root: Path, maker: ImagePublisher, where: str
) -> None:
    outside = root.parent / "outside"
    for name in ("rotten", "gone-20260101T000000Z.00000000", "20260101T000000Z.00000000"):
        (outside / name).mkdir(parents=True)
        (outside / name / "precious").touch()
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(outside)
    rules, mirror = MirrorRules(quarantine=0, grace=0), opened(root, maker).mirror
    plant(root, b"\xff", kind="oci-image")
    result = prune_directory(mirror, rules, int(maker.clock.now + 99 * DAY))
    assert result.stamp and (root / ".quarantine" / result.stamp).is_dir()
    assert len(list(outside.glob("*/precious"))) == 3 and len(list(outside.iterdir())) == 3
    assert mirror.restore(result.stamp).manifests == len(result.plan.manifests)


@pytest.mark.parametrize("text", ["", "[]", '{"tags":[[1]]}', "a link", "a FIFO"])
def test_a_planted_pruning_ends_no_command(root: Path, maker: ImagePublisher, text: str) -> None:
    planted = root / ".quarantine" / "20260101T000000Z.00000000"
    if text == "a link":
        planted.parent.mkdir()
        planted.symlink_to(root)
    else:
        planted.mkdir(parents=True)
        if text == "a FIFO":
            os.mkfifo(planted / "list.json")
        else:
            (planted / "list.json").write_text(text)
    repository = opened(root, maker)
    assert repository.pruned_by("nowhere") == ""
    plant(root, b"\xff", kind="oci-image")
    result = prune_directory(repository.mirror, MirrorRules(grace=0), int(maker.clock.now + 2 * DAY))
    assert result.stamp
    prune(repository.mirror, maker.clock.now + 99 * DAY, MirrorRules(quarantine=0))
    assert not os.path.lexists(planted) and version(root, maker) == "1.0"


def elsewhere(path: Path) -> None:
    folder = path.with_name("elsewhere") if path.parent.name == "mirror" else path.parents[1] / "elsewhere"
    folder.mkdir()
    (folder / "precious").touch()
    path.symlink_to(folder)


MISPLACED: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link": elsewhere,
    "an endless device": endless,
}


@pytest.mark.parametrize("kind", [*MISPLACED, "another kind"])
@pytest.mark.parametrize(
    "where",
    [
        *(".lock", ".lock/gate", ".lock/prune", ".lock/catalog", ".incoming", ".scrub", ".scrub/blobs"),
        *("repositories/small/_lock", "repositories/small/_moves", "repositories/small/_manifests"),
    ],
)
def test_nothing_waits_for_what_is_no_lock_or_folder_and_scrub_heals_it(
    root: Path, maker: ImagePublisher, kind: str, where: str
) -> None:
    repository, path = opened(root, maker), root / where
    path.parent.mkdir(exist_ok=True)
    if was_folder := path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    MISPLACED.get(kind, Path.touch if was_folder else folder)(path)
    for act in (
        lambda: maker.publish(opened(root, maker), maker.image("1.1")),
        lambda: prune(repository.mirror, maker.clock.now),
    ):
        try:
            act()
        except RelbuildError as error:
            problem = error.problems[0]
            assert problem.code == "mirror-unreachable" and "`relbuild scrub MIRROR`" in (problem.hint or "")
    if kind == "a link" and where == "repositories/small/_manifests":
        assert scrub(repository.mirror, maker.store).lost and path.is_symlink()
        return
    scrub(repository.mirror, maker.store)
    assert path.is_symlink() == (kind == "a link" and where == ".lock")
    assert path.is_dir() or path.is_file() or not path.exists()
    prune(repository.mirror, maker.clock.now)
    maker.publish(opened(root, maker), maker.image("1.2"))
    assert version(root, maker) == "1.2"
    assert all(path.exists() for path in root.glob("**/elsewhere") for path in [path / "precious"])
    assert not scrub(repository.mirror, maker.store).lost or where.endswith("_manifests")  # which were in it
