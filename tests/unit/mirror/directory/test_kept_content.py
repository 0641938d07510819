"""Scrub and prune keep what is honest, or may be: locks, tags that became files, unusual manifests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, VerificationError
from pipeline.mirror.atomic_files import folder_locked_at_once
from pipeline.mirror.backends.directory.directory_prune import prune_directory
from pipeline.mirror.backends.directory.misplaced_files import put_misplaced_aside
from pipeline.mirror.references import fallback_tag
from pipeline.mirror.tag_statements import anchor_manifest
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.model.rules import MirrorRules
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json
from tests.support.moved_tags import DAY, opened
from tests.support.published_images import ImagePublisher
from tests.unit.mirror.directory.test_planted import prune, version
from tests.unit.mirror.directory.test_scrub import scrub

LINKS = (".lock", ".lock/gate", ".lock/prune", ".lock/catalog", "repositories/small/_lock", "repositories/small/_moves")


@pytest.mark.parametrize("where", LINKS)
def test_a_link_through_which_a_lock_can_be_held_is_left_and_warned_of(
    root: Path, maker: ImagePublisher, where: str
) -> None:
    mirror = opened(root, maker).mirror
    with mirror.writing(), opened(root, maker).paths.moving(), opened(root, maker).paths.locked():
        pass
    path, there, warned = root / where, root.with_name("there"), list[str]()
    path.rename(there)
    path.symlink_to(there)
    with mirror.writing():
        assert put_misplaced_aside(mirror.place, warned.append) == [] and path.is_symlink()
        with pytest.raises(RelbuildError, match="mirror-busy"), mirror.pruning(0.0):
            pass
    assert len(warned) == 1 and f"'{path}'" in warned[0]
    there.rename(root.with_name("away"))  # where it leads is not there by now
    assert put_misplaced_aside(mirror.place, warned.append) == [] and path.is_symlink() and len(warned) == 2


@pytest.mark.parametrize("where", ["repositories/small/_moves", ".lock/prune"])
def test_a_lock_that_is_made_while_scrub_looks_at_its_place_stays(
    root: Path, maker: ImagePublisher, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, path, lstat = opened(root, maker).mirror, root / where, Path.lstat
    path.unlink(missing_ok=True)

    def looking(self: Path) -> os.stat_result:
        try:
            return lstat(self)
        finally:
            if self == path:
                path.touch()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", looking)
        assert put_misplaced_aside(mirror.place, pytest.fail) == []
    assert path.is_file()


def test_one_scrub_at_a_time_moves_what_is_in_the_place_of_locks(root: Path, maker: ImagePublisher) -> None:
    """What one has moved away may have been made anew, and be held, before the other moves it."""
    place, path = opened(root, maker).mirror.place, root / ".lock" / "gate"
    path.unlink()
    os.mkfifo(path)
    with folder_locked_at_once(root) as alone:
        assert alone and put_misplaced_aside(place, pytest.fail) == [] and path.is_fifo()
    assert len(put_misplaced_aside(place, pytest.fail)) == 1 and not path.exists()


def manifests_and_blobs(root: Path) -> set[str]:
    return {path.name for part in ("**/_manifests/*", "blobs/sha256/*") for path in root.glob(part)}


RULES_OF_NOW = MirrorRules(grace=0)


@pytest.mark.parametrize("how", ["copied without links", "a folder", "a link elsewhere", "no folder of tags"])
@pytest.mark.parametrize("heal", ["scrub", "publish"])
def test_prune_removes_nothing_to_which_a_lost_tag_may_have_led(
    root: Path, maker: ImagePublisher, how: str, heal: str
) -> None:
    repository, tags = opened(root, maker), root / "repositories" / "small" / "_tags"
    before, later = manifests_and_blobs(root), maker.clock.now + 6 * DAY
    for path in [path for path in tags.iterdir() if how == "copied without links" or not path.name.startswith("sha")]:
        data = path.read_bytes()
        path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a link elsewhere":
            path.symlink_to("/etc/hostname")
        else:
            path.write_bytes(data)
    if how == "no folder of tags":
        shutil.rmtree(tags)
        tags.touch()
    for _ in range(2):
        with pytest.raises(VerificationError) as caught:
            prune(repository.mirror, later, RULES_OF_NOW)
        (problem,) = caught.value.problems
        assert problem.code == "tag-damaged" and problem.place in {str(tags), *map(str, tags.glob("*"))}
        assert f"`relbuild scrub dir:{root}`" in (problem.hint or "") and manifests_and_blobs(root) == before
        with pytest.raises(VerificationError, match="tag-damaged"):
            prune_directory(repository.mirror, RULES_OF_NOW, int(later), dry_run=True)
    if heal == "publish" and how != "no folder of tags":
        maker.publish(opened(root, maker), maker.image("1.0"))
        assert version(root, maker) == "1.0"
    scrub(repository.mirror, maker.store)
    notes = prune(repository.mirror, later, RULES_OF_NOW)
    assert before <= manifests_and_blobs(root)
    assert any(".quarantine/rotten" in note for note in notes) or heal == "publish" or how == "copied without links"
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert before <= manifests_and_blobs(root) and version(root, maker) == "1.1"


def test_what_a_lost_tag_led_to_goes_when_that_has_left_quarantine(root: Path, maker: ImagePublisher) -> None:
    mirror, tags = opened(root, maker).mirror, root / "repositories" / "small" / "_tags"
    for path in [path for path in tags.iterdir() if not path.name.startswith("sha256-")]:
        path.unlink()
        path.touch()
    scrub(mirror, maker.store)
    layer = maker.image("1.0").layers[0].blob.digest
    assert prune(mirror, maker.clock.now + 6 * DAY, RULES_OF_NOW) and opened(root, maker).has_blob(layer)
    assert not prune(mirror, maker.clock.now + 8 * DAY, RULES_OF_NOW) and not opened(root, maker).has_blob(layer)


EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize("said", ["", DOCKER, media_types.MANIFEST.upper(), None])
@pytest.mark.parametrize("named", [media_types.MANIFEST, DOCKER])
def test_a_manifest_that_a_mirror_takes_stays_with_its_blobs_whatever_media_type_it_says(
    root: Path, maker: ImagePublisher, said: str | None, named: str
) -> None:
    """Go's structs without omitempty write an empty one, and registries take it."""
    repository, layer = opened(root, maker), Digest.of(b"attested")
    subject = maker.image("1.0").manifest_descriptor
    for one, data in ((EMPTY, b"{}"), (Descriptor("application/x", layer, 8), b"attested")):
        repository.put_blob(one, data)
    document = {
        "schemaVersion": 2,
        "mediaType": said,
        "config": descriptor_json(EMPTY),
        "layers": [descriptor_json(Descriptor("application/x", layer, 8))],
        "subject": descriptor_json(subject),
    }
    manifest = Manifest(named, json.dumps({name: one for name, one in document.items() if one is not None}).encode())
    repository.put_manifest(manifest)
    repository.attach(manifest)
    repository.put_auxiliary(f"sha256-{subject.digest.hex}.att", manifest, None)
    before = manifests_and_blobs(root)
    assert not scrub(repository.mirror, maker.store).findings
    assert prune(repository.mirror, maker.clock.now + 9 * DAY, RULES_OF_NOW) == ()
    assert manifests_and_blobs(root) == before
    assert manifest.digest in {one.descriptor.digest for one in repository.referrers(subject.digest)}


def test_a_second_name_to_which_a_tag_leads_stays(root: Path, maker: ImagePublisher) -> None:
    """A client may pull it so from the web server."""
    repository, folder = opened(root, maker), root / "repositories" / "small" / "_manifests"
    image = maker.image("1.0").digest
    second = folder / f"{image.hex}.docker-image"
    shutil.copy(folder / f"{image.hex}.oci-image", second)
    (folder.parent / "_tags" / "docker").symlink_to(f"../_manifests/{second.name}")
    repository.paths.list_tags()
    assert not scrub(repository.mirror, maker.store).findings and second.exists()


def test_what_is_no_list_hides_none_of_the_statements_that_are_here(root: Path, maker: ImagePublisher) -> None:
    """The next publication would list its own alone, and begin the numbers anew."""
    repository = opened(root, maker)
    subject = anchor_manifest(repository.identity, "latest").digest
    before, path = repository.referrers(subject), root / "repositories" / "small" / "_tags" / fallback_tag(subject)
    path.unlink()
    path.touch()
    assert before and repository.referrers(subject) == before
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert {one.descriptor.digest for one in before} < {one.descriptor.digest for one in repository.referrers(subject)}


def test_a_file_system_that_reads_less_at_once_has_whole_manifests(
    root: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, read = opened(root, maker).mirror, os.read
    held = mirror.inventory()
    monkeypatch.setattr(os, "read", lambda handle, size: read(handle, min(size, 100)))
    assert mirror.inventory() == held


def test_a_publication_that_replaces_a_lost_tag_keeps_what_it_led_to(root: Path, maker: ImagePublisher) -> None:
    mirror, tags, before = (
        opened(root, maker).mirror,
        root / "repositories" / "small" / "_tags",
        manifests_and_blobs(root),
    )
    for path in [path for path in tags.iterdir() if not path.name.startswith("sha256-")]:
        path.unlink()
    (tags / "latest").touch()
    maker.publish(opened(root, maker), maker.image("1.1"))
    prune(mirror, maker.clock.now + 6 * DAY, RULES_OF_NOW)
    assert before <= manifests_and_blobs(root) and version(root, maker) == "1.1"
