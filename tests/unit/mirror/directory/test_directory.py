"""A mirror in a directory: what is published is read back, what is wrong is refused, and files are whole."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError, VerificationError
from pipeline.mirror import atomic_files
from pipeline.mirror.atomic_files import _draft
from pipeline.mirror.backends.directory import directory_repository
from pipeline.mirror.backends.directory.directory_address_form import find_root
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.protocol import Arrival, TagConflict
from pipeline.mirror.references import fallback_tag
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.mirror_images import whole

# --- reading and writing


def test_what_is_published_is_read_back(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("base/tiny")
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(repository, store, made, "1.0")
    note = mirror_images.attach(repository, put.descriptor, "first")
    assert repository.manifest("1.0") == repository.manifest(put.digest) == put
    assert repository.resolve("1.0") == put.digest
    assert repository.tags() == ("1.0", fallback_tag(put.digest))
    assert repository.read_blob(made.config_descriptor) == made.config_bytes
    assert all(repository.has_blob(digest) for digest in mirror_images.blobs_of(made))
    (referrer,) = repository.referrers(put.digest)
    assert referrer.descriptor.digest == note.digest
    assert referrer.artifact_type == "application/vnd.example.note"
    assert referrer.annotation("org.example.text") == "first"
    assert repository.url == f"dir:{mirror.place.root}/base/tiny"
    assert repository.identity == "images.example/team/base/tiny"
    assert mirror.repositories() == ("base/tiny",)
    whole(mirror)


def test_what_is_not_there_is_none(mirror: DirectoryMirror) -> None:
    repository = mirror.repository("tiny")
    unknown = Digest.of(b"nothing")
    assert repository.manifest("1.0") is repository.manifest(unknown) is repository.resolve("1.0") is None
    assert repository.manifest("../../relbuild-mirror.json") is None
    assert repository.tags() == repository.referrers(unknown) == mirror.repositories() == ()
    with pytest.raises(VerificationError, match="not found"):
        repository.read_blob(Descriptor("text/plain", unknown, 7))


def test_an_index_and_a_repository_within_another(mirror: DirectoryMirror, store: Store) -> None:
    outer, inner = mirror.repository("a"), mirror.repository("a/b")
    one, two = mirror_images.image(store, 1), mirror_images.image(store, 2)
    for made in (one, two):
        mirror_images.put(outer, store, made)
    both = mirror_images.index(one, two)
    assert outer.put_manifest(both)
    assert not outer.put_manifest(both)
    outer.point("1", mirror_images.cleared(both), None)
    mirror_images.publish(inner, store, two, "1")
    assert outer.manifest("1") == both
    assert mirror.repositories() == ("a", "a/b")
    assert inner.manifest(both.digest) is None
    whole(mirror)


def test_a_blob_goes_into_the_store_verified(mirror: DirectoryMirror, store: Store, tmp_path: Path) -> None:
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    mirror_images.put(repository, store, made)
    other = Store.open(tmp_path / "other")
    blob = made.layers[0].blob
    repository.fetch_blob(blob, other)
    assert other.read(blob.digest, limit=blob.size) == store.read(blob.digest, limit=blob.size)
    mirror.place.blob(made.layers[1].blob.digest).unlink()
    mirror.place.blob(made.layers[1].blob.digest).write_bytes(b"x" * made.layers[1].blob.size)
    with pytest.raises(VerificationError):
        repository.fetch_blob(made.layers[1].blob, other)
    assert not other.has(made.layers[1].blob.digest)


def test_a_publication_that_changes_nothing_touches_nothing(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(repository, store, made, "1.0")
    mirror_images.attach(repository, put.descriptor, "first")

    def seen() -> dict[Path, tuple[int, int, int]]:
        found = ((path, path.lstat()) for path in mirror.place.root.rglob("*"))
        return {
            path: (one.st_ino, one.st_mtime_ns, one.st_ctime_ns)
            for path, one in found
            if path.name != ".incoming" and ".scrub" not in path.parts  # what was found whole is remembered
        }

    before = seen()
    assert repository.put_blob(made.layers[0].blob, store.blob(made.layers[0].blob.digest)) is Arrival.PRESENT
    mirror_images.publish(repository, store, made, "1.0")
    assert not repository.attach(mirror_images.speaks_of(put.descriptor, "first"))
    assert seen() == before


def test_the_same_blob_is_kept_once_for_all_repositories(mirror: DirectoryMirror, store: Store) -> None:
    made = mirror_images.image(store, 1)
    mirror_images.publish(mirror.repository("a"), store, made, "1.0")
    blob = made.layers[0].blob
    assert mirror.repository("b").put_blob(blob, store.blob(blob.digest)) is Arrival.PRESENT


# --- what is refused


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../b", "a//b", "/a", "a/", "A", "_tags", "a/_tags", "a b", "a:b", "a" * 201]
)
def test_a_name_that_is_none_is_refused(mirror: DirectoryMirror, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        mirror.repository(name)
    assert caught.value.code == "repository-name"


def test_a_tag_is_moved_only_from_what_it_is_taken_to_point_to(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    one = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    two = mirror_images.put(repository, store, mirror_images.image(store, 2))
    for expected in (None, two.digest):
        with pytest.raises(TagConflict) as caught:
            repository.point("1", mirror_images.cleared(two), expected)
        assert caught.value.found == one.digest
    with pytest.raises(TagConflict):
        repository.remove_tag("1", two.digest)
    with pytest.raises(TagConflict):
        repository.put_auxiliary("move.1.x", two, one.digest)
    assert repository.resolve("1") == one.digest
    repository.point("1", mirror_images.cleared(two), one.digest)
    assert repository.resolve("1") == two.digest


def test_tags_to_pull_by_and_auxiliary_tags_are_not_mixed(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    put = mirror_images.put(repository, store, mirror_images.image(store, 1))
    for tag in ("sha256-" + "0" * 64 + ".sig", "move.1.2", "../x", ""):
        with pytest.raises(ValueError, match="is a reserved tag"):
            repository.point(tag, mirror_images.cleared(put), None)
    for tag in ("1.0", "latest", "../../move.x"):
        with pytest.raises(ValueError, match="not an auxiliary tag"):
            repository.put_auxiliary(tag, put, None)
    repository.put_auxiliary("move.1.2", put, None)
    assert repository.manifest("move.1.2") == put


def test_nothing_incomplete_gets_a_name(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    alone = mirror_images.manifest(made)
    with pytest.raises(VerificationError) as caught:
        repository.put_manifest(alone)
    assert caught.value.code == "blob-missing"
    with pytest.raises(VerificationError) as caught:
        repository.put_manifest(mirror_images.index(made))
    assert caught.value.code == "manifest-missing"
    with pytest.raises(VerificationError) as caught:
        repository.point("1", mirror_images.cleared(alone), None)
    assert caught.value.code == "manifest-missing"
    put = mirror_images.put(repository, store, made)
    mirror.place.blob(made.layers[1].blob.digest).unlink()  # As a pruning before a rollback would.
    with pytest.raises(VerificationError) as caught:
        repository.point("1", mirror_images.cleared(put), None)
    assert caught.value.code == "blob-missing"
    assert repository.tags() == ()


def test_a_manifest_that_cannot_be_served_is_refused(mirror: DirectoryMirror) -> None:
    with pytest.raises(UsageError) as caught:
        mirror.repository("tiny").put_manifest(Manifest("application/vnd.docker.distribution.manifest.v1+json", b"{}"))
    assert caught.value.code == "media-type-unservable"


@pytest.mark.parametrize("kind", ["bytes", "linked", "copied"])
def test_other_bytes_than_the_digest_promises_are_refused(mirror: DirectoryMirror, tmp_path: Path, kind: str) -> None:
    promised = Descriptor("text/plain", Digest.of(b"right"), 5)
    file = tmp_path / (promised.digest.hex if kind == "linked" else "file")
    file.write_bytes(b"wrong")
    with pytest.raises(VerificationError) as caught:
        mirror.repository("tiny").put_blob(promised, b"wrong" if kind == "bytes" else file)
    assert caught.value.code == "digest-mismatch"
    assert not list(mirror.place.blobs.iterdir())
    assert not list(mirror.place.drafts.iterdir())


def test_a_blob_whose_file_is_gone_is_told(mirror: DirectoryMirror, tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        mirror.repository("tiny").put_blob(Descriptor("text/plain", Digest.of(b"x"), 1), tmp_path / "gone")
    assert caught.value.code == "blob-missing"


def test_a_short_blob_that_others_left_is_replaced(mirror: DirectoryMirror) -> None:
    repository = mirror.repository("tiny")
    right = Descriptor("text/plain", Digest.of(b"right"), 5)
    mirror.place.make()
    mirror.place.blob(right.digest).write_bytes(b"ri")
    assert repository.put_blob(right, b"right") is Arrival.UPLOADED
    assert repository.read_blob(right) == b"right"


def test_a_damaged_manifest_is_told(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    file = mirror.place.paths("tiny").manifest_file(put.descriptor)
    file.write_bytes(put.data.replace(b"tiny", b"tinY"))
    with pytest.raises(VerificationError) as caught:
        repository.manifest("1")
    assert caught.value.code == "digest-mismatch"


# --- files


def test_what_is_published_shares_no_inode_with_a_store(mirror: DirectoryMirror, store: Store, tmp_path: Path) -> None:
    """A byte written into a file of the store, or of output/, must not be one of the mirror's."""
    repository = mirror.repository("tiny")
    blob = Descriptor("text/plain", store.put(b"one"), 3)
    repository.put_blob(blob, store.blob(blob.digest))
    assert not mirror.place.blob(blob.digest).samefile(store.blob(blob.digest))
    store.blob(blob.digest).write_bytes(b"two")
    assert repository.read_blob(blob) == b"one"


def test_a_file_that_was_linked_into_a_store_before_is_made_the_mirrors_own(
    mirror: DirectoryMirror, store: Store
) -> None:
    blob = Descriptor("text/plain", store.put(b"one"), 3)
    mirror.place.blob(blob.digest).hardlink_to(store.blob(blob.digest))
    assert mirror.repository("tiny").put_blob(blob, store.blob(blob.digest)) is Arrival.PRESENT
    assert not mirror.place.blob(blob.digest).samefile(store.blob(blob.digest))
    assert mirror.place.blob(blob.digest).read_bytes() == b"one"


def test_everything_is_readable_by_whoever_serves_it_but_locks(tmp_path: Path, store: Store) -> None:
    before = os.umask(0o077)
    try:
        mirror = open_directory(tmp_path / "closed", create=True, clock=time.time)
        mirror_images.publish(mirror.repository("a/b"), store, mirror_images.image(store, 1), "1")
    finally:
        os.umask(before)
    for path in mirror.place.root.rglob("*"):
        if path.name in ("_lock", ".incoming") or path.parent.name == ".lock":
            assert path.stat().st_mode & 0o077 == 0, path  # Whoever can read it could keep everybody waiting.
        elif not path.is_symlink():
            wanted = 0o755 if path.is_dir() else 0o444
            assert path.stat().st_mode & wanted == wanted, path


def test_a_hard_linked_copy_is_a_snapshot(mirror: DirectoryMirror, store: Store, tmp_path: Path) -> None:
    repository = mirror.repository("tiny")
    one = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    mirror_images.attach(repository, one.descriptor, "first")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-al", mirror.place.root, copy], check=True)
    before = mirror_images.all_files(copy)
    mirror_images.attach(repository, one.descriptor, "second")
    mirror_images.publish(repository, store, mirror_images.image(store, 2), "1")
    mirror_images.publish(mirror.repository("other"), store, mirror_images.image(store, 2), "1")
    assert mirror_images.all_files(copy) == before
    assert open_directory(copy, create=False, clock=time.time).repository("tiny").manifest("1") == one


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's")
    for create in (True, False):
        with pytest.raises(UsageError) as caught:
            open_directory(tmp_path, create=create, clock=time.time)
        assert caught.value.code == "not-a-mirror"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_host_is_remembered_and_another_refused(tmp_path: Path) -> None:
    assert open_directory(tmp_path / "m", create=True, clock=time.time).host == "localhost"
    open_directory(tmp_path / "n", create=True, clock=time.time, host="a.example:5000/team")
    assert open_directory(tmp_path / "n", create=True, clock=time.time).host == "a.example:5000/team"
    for host in ("b.example", "http://a.example", "a b", ""):
        with pytest.raises(UsageError) as caught:
            open_directory(tmp_path / "n", create=True, clock=time.time, host=host)
        assert caught.value.code == "mirror-host"


def test_the_root_is_found_from_a_path_in_it(mirror: DirectoryMirror, tmp_path: Path) -> None:
    root = mirror.place.root
    assert find_root(root) == (root, "")
    assert find_root(root / "team" / "tiny") == (root, "team/tiny")
    assert find_root(tmp_path / "elsewhere") is None


def test_a_file_system_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacking) as caught:
        open_directory(tmp_path / "file" / "mirror", create=True, clock=time.time)
    assert caught.value.code == "mirror-unreachable"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_file_and_what_frees_space_there(
    number: int, mirror: DirectoryMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_files, "_settle", full)
    blob = Descriptor("application/octet-stream", Digest.of(b"blob"), 4)
    with pytest.raises(EnvironmentLacking) as caught:
        mirror.repository("tiny").put_blob(blob, b"blob")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("disk-full", f"{mirror.url}/tiny")
    assert f"is full while '{mirror.place.blob(blob.digest)}' is written" in problem.message
    assert "relbuild prune" in str(problem.hint)
    assert "store gc" not in str(problem.hint)


def test_a_full_disk_of_a_store_is_not_the_mirrors(mirror: DirectoryMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/store/blobs/x")

    monkeypatch.setattr(directory_repository, "fetch_verified", full)
    with pytest.raises(OSError, match="/store/blobs/x"):
        mirror.repository("tiny").fetch_blob(Descriptor("x", Digest.of(b"blob"), 4), None)  # type: ignore[arg-type]


def test_what_killed_processes_left_goes_with_the_next_run(mirror: DirectoryMirror) -> None:
    """However young it is: a draft of somebody who lives is known by the lock on the folder."""
    left = mirror.place.drafts / "tmpabc"
    left.write_text("half")
    with _draft(mirror.place.drafts, mirror.place.root / "x") as (draft, file):
        file.write(b"half")
        with mirror.writing():
            assert draft.exists()
    assert not draft.exists()
    with mirror.writing():
        assert not left.exists()
    left.write_text("half")
    with mirror.pruning(1):
        assert not left.exists()


# --- removing


def test_a_removed_manifest_takes_its_names_with_it(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    mirror_images.publish(repository, store, mirror_images.image(store, 1), "latest")
    notes = [mirror_images.attach(repository, put.descriptor, text) for text in ("first", "second")]
    repository.remove_manifest(notes[0].digest)
    assert [one.descriptor.digest for one in repository.referrers(put.digest)] == [notes[1].digest]
    repository.remove_manifest(notes[1].digest)
    assert repository.tags() == ("1", "latest")
    repository.remove_tag("latest", put.digest)
    assert repository.tags() == ("1",)
    repository.remove_manifest(put.digest)
    assert repository.tags() == ()
    assert repository.manifest(put.digest) is None
    repository.remove_manifest(put.digest)
    whole(mirror)


def test_an_inventory_knows_when_things_came(tmp_path: Path, store: Store) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=mirror_images.ticking(1_700_000_000))
    made = mirror_images.image(store, 1)
    for digest in mirror_images.blobs_of(made):
        if store.has(digest):
            os.utime(store.blob(digest), (1_000_000_000, 1_000_000_000))
    began = time.time() - 1
    put = mirror_images.publish(mirror.repository("a/b"), store, made, "1")
    found = mirror.inventory()
    assert {blob.digest for blob in found.blobs} == mirror_images.blobs_of(made)
    # Linked from a store where it is years old: it is young here.
    assert all(blob.since is not None and blob.since >= int(began) for blob in found.blobs)
    (repository,) = found.repositories
    assert (repository.name, [one.digest for one in repository.manifests]) == ("a/b", [put.digest])
    (tag,) = repository.tags
    assert (tag.name, tag.digest) == ("1", put.digest)
    assert tag.set_at is not None and 1_700_000_000 <= tag.set_at < 1_700_000_100


def test_errors_are_the_projects_own(mirror: DirectoryMirror) -> None:
    with mirror.pruning(1) as pruning:
        for stamp in ("", "..", "../..", "20260101T000000Z.0000000g", "gone-20260101T000000Z.00000000"):
            with pytest.raises(RelbuildError):
                pruning.restore(stamp)
