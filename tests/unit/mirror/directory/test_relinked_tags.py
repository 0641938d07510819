"""A mirror that was copied without symbolic links gets those of its tags back by a scrub."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory import directory_scrub, lost_tags, manifest_files
from pipeline.mirror.backends.directory.mirror_paths import RepositoryPaths
from pipeline.mirror.image_tags import names_digest
from pipeline.mirror.references import fallback_tag, referrers_index
from pipeline.mirror.tag_statements import anchor_manifest
from pipeline.model.rules import MirrorRules
from pipeline.model.scrub import DamageKind, RepairOutcome, ScrubbedObject
from pipeline.release import copy, verify_reference
from tests.support.moved_tags import DAY, at, code_of, opened, published_files, resolved
from tests.support.published_images import RULES, ImagePublisher, key
from tests.unit.mirror.directory.test_kept_content import manifests_and_blobs
from tests.unit.mirror.directory.test_planted import prune, version
from tests.unit.mirror.directory.test_scrub import scrub, told

HEALED = (ScrubbedObject.TAG, DamageKind.ROTTEN, RepairOutcome.HEALED)
TIME = 1_700_000_000


@pytest.fixture
def tags(root: Path, maker: ImagePublisher) -> Path:
    """The tags of a mirror with two versions that was copied without links, at a certain time."""
    maker.publish(opened(root, maker), maker.image("1.1"))
    original = root.rename(root.with_name("original"))
    shutil.copytree(original, root)
    folder = root / "repositories" / "small" / "_tags"
    for path in folder.iterdir():
        assert not path.is_symlink()
        os.utime(path, (TIME, TIME))
    return folder


def test_all_links_are_made_again(root: Path, maker: ImagePublisher, tags: Path) -> None:
    original, mirror = root.with_name("original"), opened(root, maker).mirror
    done = scrub(mirror, maker.store)
    names = {path.name for path in tags.iterdir()}
    assert told(done) == {HEALED} and {one.name for one in done.findings} == names and done.json()["healed"] is True
    assert {one.source for one in done.findings} == {"what is there"} and any(
        one.startswith("sha256-") for one in names
    )
    assert published_files(root) == published_files(original)
    for name in names:
        assert (tags / name).readlink() == (original / "repositories/small/_tags" / name).readlink()
        assert (tags / name).lstat().st_mtime == TIME
    assert version(root, maker) == "1.1" and not scrub(mirror, maker.store).findings
    before = manifests_and_blobs(root)
    assert prune(mirror, maker.clock.now + 9 * DAY, MirrorRules(grace=10**9)) == ()
    assert manifests_and_blobs(root) == before
    maker.publish(opened(root, maker), maker.image("1.2"))
    assert version(root, maker) == "1.2"


def test_who_reads_a_tag_is_told_that_it_is_no_link_and_the_way_out(
    root: Path, maker: ImagePublisher, tags: Path, tmp_path: Path
) -> None:
    def verify() -> object:
        return verify_reference(at(root), key().public, maker.build_env)

    for act in (verify, lambda: copy(at(root), at(tmp_path / "there", ""), key().public, RULES, maker.build_env)):
        with pytest.raises(VerificationError, match="_tags/latest' is no symbolic link to a manifest") as caught:
            act()
        (problem,) = caught.value.problems
        assert (problem.code, problem.place) == ("tag-damaged", str(tags / "latest"))
        assert f"`relbuild scrub dir:{root}`" in (problem.hint or "")
    scrub(opened(root, maker).mirror, maker.store)
    verify()
    (tags / "latest").unlink()
    assert code_of(verify) == "reference-missing"
    (tags / "latest").symlink_to(f"../_manifests/{'0' * 64}.oci-image")
    assert code_of(verify) == "manifest-missing"


@pytest.mark.parametrize("data", [b"", b"cut", b"grown", b"of another repository", b"layer"])
def test_what_is_no_manifest_of_the_repository_is_put_aside(
    data: bytes, root: Path, maker: ImagePublisher, tags: Path
) -> None:
    manifest = (tags / "latest").read_bytes()
    if data == b"cut":
        data = manifest[:-1]
    elif data == b"grown":
        data = manifest + b"\n"
    elif data == b"of another repository":
        maker.publish(opened(root, maker, "other"), other := maker.image("1.0", "other"))
        data = opened(root, maker, "other").paths.manifests.joinpath(f"{other.digest.hex}.oci-image").read_bytes()
    elif data == b"layer":
        data = next((root / "blobs" / "sha256").iterdir()).read_bytes()
    (tags / "latest").write_bytes(data)
    done = scrub(opened(root, maker).mirror, maker.store)
    (lost,) = done.lost
    assert (lost.thing, lost.name, lost.fate) == (ScrubbedObject.TAG, "latest", RepairOutcome.LOST)
    assert not os.path.lexists(tags / "latest")
    (aside,) = (root / ".quarantine" / "rotten").glob("tags-*/latest.*")
    assert aside.read_bytes() == data


def test_a_lists_link_is_made_again_and_what_it_lacks_is_listed(root: Path, maker: ImagePublisher, tags: Path) -> None:
    repository = opened(root, maker)
    subject = anchor_manifest(repository.identity, "latest").digest
    listed = opened(root.with_name("original"), maker).referrers(subject)
    older = referrers_index(listed[:1])
    repository.paths.write(older)
    (tags / fallback_tag(subject)).write_bytes(older.data)
    scrub(repository.mirror, maker.store)
    assert repository.paths.tags.joinpath(fallback_tag(subject)).is_symlink()
    assert len(listed) > 1 and repository.referrers(subject) == listed


def test_a_file_moves_no_tag_to_where_no_signed_move_does(root: Path, maker: ImagePublisher, tags: Path) -> None:
    """No more than a link, which who can write there can make as well."""
    older = maker.image("1.0").digest
    shutil.copyfile(tags.with_name("_manifests") / f"{older.hex}.oci-image", tags / "latest")
    scrub(opened(root, maker).mirror, maker.store)
    assert resolved(opened(root, maker), "latest") == older
    assert code_of(lambda: verify_reference(at(root), key().public, maker.build_env)) == "tag-replayed"


def test_a_tag_that_is_moved_meanwhile_stays_where_it_was_moved(
    root: Path, maker: ImagePublisher, tags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = directory_scrub.tag_target

    def move(paths: RepositoryPaths, tag: str) -> Digest | None:
        found = real(paths, tag)
        if tag == "latest" and found is None:
            maker.publish(opened(root, maker), maker.image("1.2"), tags=("latest",))
        return found

    monkeypatch.setattr(directory_scrub, "tag_target", move)
    done = scrub(opened(root, maker).mirror, maker.store)
    assert "latest" not in {one.name for one in done.findings} and version(root, maker) == "1.2"


def test_of_two_names_of_a_manifest_the_one_that_tells_its_media_type_is_linked_to(
    root: Path, maker: ImagePublisher, tags: Path
) -> None:
    folder, digest = tags.with_name("_manifests"), Digest.of((tags / "latest").read_bytes())
    shutil.copy(folder / f"{digest.hex}.oci-image", folder / f"{digest.hex}.docker-image")
    scrub(opened(root, maker).mirror, maker.store)
    assert (tags / "latest").readlink().name == f"{digest.hex}.oci-image"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("what", ["tag", "manifest"])
def test_what_cannot_be_read_ends_no_scrub(
    root: Path, maker: ImagePublisher, tags: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    """A file of root's after a restore, or a bad disk: the tag goes aside, and all others are made again."""
    name = f"{Digest.of((tags / 'latest').read_bytes()).hex}.oci-image"
    bad = tags / "latest" if what == "tag" else tags.with_name("_manifests") / name
    others = {path.name for path in tags.iterdir() if path.read_bytes() != bad.read_bytes()}
    real = manifest_files.read_regular

    def read(path: Path) -> tuple[bytes, os.stat_result] | None:
        if path == bad:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(lost_tags, "read_regular", read)
    done = scrub(opened(root, maker).mirror, maker.store)
    assert "latest" in {one.name for one in done.lost} and not os.path.lexists(tags / "latest")
    assert others and all((tags / one).is_symlink() for one in others)
    assert len(list((root / ".quarantine" / "rotten").glob("tags-*/latest.*"))) == 1


def test_the_immutable_tag_of_another_image_is_put_aside(root: Path, maker: ImagePublisher, tags: Path) -> None:
    """A link to the wrong image would refuse the next publication of the right one (`tag-immutable`)."""
    older, newer = maker.image("1.0").digest, maker.image("1.1").digest
    (tag,) = (path.name for path in tags.iterdir() if names_digest(path.name, newer))
    shutil.copyfile(tags.with_name("_manifests") / f"{older.hex}.oci-image", tags / tag)
    done = scrub(opened(root, maker).mirror, maker.store)
    assert [one.name for one in done.lost] == [tag] and not os.path.lexists(tags / tag)
    maker.publish(opened(root, maker), maker.image("1.1"))
    assert resolved(opened(root, maker), tag) == newer
