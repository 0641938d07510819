"""What `mirror/protocol.py` promises, held by every kind of mirror: what is refused, and what comes of what is not.

`test_gate_doors.py` shows for every kind that tags by which people pull want what the gate has cleared.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, UsageError, VerificationError
from pipeline.mirror.address import AddressForm
from pipeline.mirror.address_parser import ADDRESS_FORMS, parse_address
from pipeline.mirror.protocol import Arrival, Mirror, Repository, TagConflict, is_auxiliary
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.store import Store
from tests.support import mirror_images

BLOB = Descriptor("text/plain", Digest.of(b"whole"), 5)
ABSENT = Descriptor("text/plain", Digest.of(b"never put"), 9)
AUXILIARY = f"sha256-{'a' * 64}.sig"


@pytest.fixture
def repository(any_mirror: Mirror) -> Repository:
    return any_mirror.repository("tiny")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def images(repository: Repository, store: Store) -> tuple[Manifest, Manifest]:
    """Two images, of which no tag tells yet."""
    one, two = (mirror_images.put(repository, store, mirror_images.image(store, number)) for number in (1, 2))
    return one, two


def conflict(caught: pytest.ExceptionInfo[TagConflict]) -> tuple[str, Digest | None, bool]:
    return caught.value.tag, caught.value.found, caught.value.written


# --- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ADDRESS_FORMS, ids=lambda form: form.prefix)
def test_an_example_is_split_into_a_mirror_and_a_name_on_it(form: AddressForm) -> None:
    like = next(one.example for one in ADDRESS_FORMS if type(one) is type(form) and one.example)
    address = parse_address(form.prefix + like.partition(":")[2].lstrip("/").lower())
    assert address.tag == "tag"
    mirror, name = form.locate(address, create=True)
    assert str(mirror.below(name) if name else mirror) == address.url
    assert not name or name == "name"


def test_a_repositorys_address_leads_back_to_it(any_mirror: Mirror, repository: Repository, store: Store) -> None:
    mirror_images.publish(repository, store, mirror_images.image(store, 1), "1.0")
    address = parse_address(f"{repository.url}:1.0")
    mirror, name = address.form.locate(address, create=False)
    assert (mirror.url, name) == (any_mirror.url, repository.name)
    assert any_mirror.repository(name).url == repository.url
    assert any_mirror.repositories() in ((), (name,))
    assert repository.identity.endswith(name)


@pytest.mark.parametrize("name", ["../tiny", "Tiny", "/tiny", "tiny/", "a b"])
def test_what_is_no_name_of_a_repository_is_refused(any_mirror: Mirror, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        any_mirror.repository(name)
    assert caught.value.code == "repository-name"


# --- tags to pull by ---------------------------------------------------------------------------------------


def test_a_tag_moves_only_from_where_it_is_expected(repository: Repository, images: tuple[Manifest, Manifest]) -> None:
    one, two = images
    repository.point("latest", mirror_images.cleared(one), None)
    for expected in (None, two.digest):
        with pytest.raises(TagConflict) as caught:
            repository.point("latest", mirror_images.cleared(two), expected)
        assert conflict(caught) == ("latest", one.digest, False)
        assert repository.resolve("latest") == one.digest
    with pytest.raises(TagConflict) as caught:
        repository.point("stable", mirror_images.cleared(two), one.digest)
    assert conflict(caught) == ("stable", None, False)
    assert repository.tags() == ("latest",)
    repository.point("latest", mirror_images.cleared(one), one.digest)
    repository.point("latest", mirror_images.cleared(two), one.digest)
    assert repository.resolve("latest") == two.digest and repository.manifest("latest") == two
    repository.await_writers()
    assert repository.resolve("latest") == two.digest


def test_a_tag_moves_while_the_locks_for_it_are_held(
    any_mirror: Mirror, repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    with any_mirror.writing(), repository.moving():
        repository.point("latest", mirror_images.cleared(images[0]), None)
    assert repository.resolve("latest") == images[0].digest


@pytest.mark.parametrize(
    "tag", [f"sha256-{'a' * 64}", AUXILIARY, "move.20260101.x", f"sources-{'a' * 12}", f"prune.{'a' * 32}"]
)
def test_an_auxiliary_tag_is_not_pointed_at_an_image(
    repository: Repository, images: tuple[Manifest, Manifest], tag: str
) -> None:
    assert is_auxiliary(tag)
    with pytest.raises(ValueError, match=r"is (an auxiliary|a reserved) tag"):
        repository.point(tag, mirror_images.cleared(images[0]), None)
    assert repository.tags() == ()


@pytest.mark.parametrize("lacking", ["everything", "a layer", "an image of the index"])
def test_a_tag_is_not_pointed_at_what_is_not_all_there(repository: Repository, store: Store, lacking: str) -> None:
    image = mirror_images.image(store, 1)
    wanted = mirror_images.manifest(image)
    if lacking == "a layer":
        repository.put_blob(image.config_descriptor, image.config_bytes)
        repository.put_blob(image.layers[0].blob, store.blob(image.layers[0].blob.digest))
    elif lacking == "an image of the index":
        other = mirror_images.image(store, 2)
        mirror_images.put(repository, store, other)
        wanted = mirror_images.index(other, image)
    with pytest.raises(RelbuildError):
        repository.point("1.0", mirror_images.cleared(wanted), None)
    assert repository.resolve("1.0") is None and repository.tags() == ()


# --- auxiliary tags ----------------------------------------------------------------------------------------


def test_an_auxiliary_tag_moves_only_from_where_it_is_expected(
    repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    one, two = images
    with pytest.raises(TagConflict) as caught:
        repository.put_auxiliary(AUXILIARY, one, two.digest)
    assert conflict(caught) == (AUXILIARY, None, False)
    repository.put_auxiliary(AUXILIARY, one, None)
    for expected in (None, two.digest):
        with pytest.raises(TagConflict) as caught:
            repository.put_auxiliary(AUXILIARY, two, expected)
        assert conflict(caught) == (AUXILIARY, one.digest, False)
        assert repository.resolve(AUXILIARY) == one.digest
    repository.put_auxiliary(AUXILIARY, two, one.digest)
    assert repository.resolve(AUXILIARY) == two.digest and repository.tags() == (AUXILIARY,)


def test_an_auxiliary_tag_brings_its_manifest(repository: Repository, images: tuple[Manifest, Manifest]) -> None:
    note = mirror_images.speaks_of(images[0].descriptor, "a note")
    with pytest.raises(RelbuildError):
        repository.put_auxiliary(AUXILIARY, note, None)
    assert repository.tags() == ()
    repository.put_blob(mirror_images.EMPTY, b"{}")
    repository.put_auxiliary(AUXILIARY, note, None)
    assert repository.manifest(AUXILIARY) == note == repository.manifest(note.digest)


# --- blobs and manifests -----------------------------------------------------------------------------------


def test_a_blob_is_put_once_and_given_back(repository: Repository, store: Store, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"whole")
    assert not repository.has_blob(BLOB.digest) and not repository.holds_whole(BLOB)
    assert repository.put_blob(BLOB, tmp_path / "own") is Arrival.UPLOADED
    assert repository.put_blob(BLOB, b"whole") is Arrival.PRESENT
    assert repository.has_blob(BLOB.digest) and repository.holds_whole(BLOB)
    assert repository.read_blob(BLOB) == b"whole"
    seen: list[int] = []
    repository.check_blob(BLOB, seen.append)
    assert sum(seen) == 5
    assert not store.has(BLOB.digest)
    for _ in range(2):
        repository.fetch_blob(BLOB, store)
        assert store.blob(BLOB.digest).read_bytes() == b"whole"


@pytest.mark.parametrize("content", [b"wrong", b"whole, and more", b""])
@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_blob_of_another_digest_is_refused(
    repository: Repository, tmp_path: Path, content: bytes, in_a_file: bool
) -> None:
    (tmp_path / "own").write_bytes(content)
    with pytest.raises(VerificationError):
        repository.put_blob(BLOB, tmp_path / "own" if in_a_file else content)
    assert not repository.has_blob(BLOB.digest) and not repository.holds_whole(BLOB)


def test_what_is_not_there_is_said_to_be_missing(
    repository: Repository, images: tuple[Manifest, Manifest], store: Store
) -> None:
    assert repository.manifest("latest") is repository.resolve("latest") is None
    assert repository.manifest(ABSENT.digest) is None
    assert repository.manifest(images[0].digest) == images[0]
    assert repository.has_manifest(images[0].digest) and not repository.has_manifest(ABSENT.digest)
    assert not repository.has_blob(ABSENT.digest) and not repository.holds_whole(ABSENT)
    for verb in (repository.read_blob, repository.check_blob, lambda blob: repository.fetch_blob(blob, store)):
        with pytest.raises(VerificationError) as caught:
            verb(ABSENT)  # type: ignore[operator]
        assert caught.value.code == "blob-missing"
    assert not store.has(ABSENT.digest)


def test_what_is_said_to_be_new_is_put_also_where_it_was(
    repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    for _ in range(2):
        repository.put_blob(BLOB, b"whole", new=True)
        repository.put_manifest(images[0], new=True)
        assert repository.read_blob(BLOB) == b"whole" and repository.manifest(images[0].digest) == images[0]


def test_a_blob_that_is_asked_for_with_another_size_is_not_given(repository: Repository, store: Store) -> None:
    repository.put_blob(BLOB, b"whole")
    longer = Descriptor(BLOB.media_type, BLOB.digest, 6)
    assert not repository.holds_whole(longer)
    with pytest.raises(VerificationError):
        repository.check_blob(longer)


def test_a_manifest_is_put_once_and_only_with_its_blobs(repository: Repository, store: Store) -> None:
    image = mirror_images.image(store, 1)
    wanted = mirror_images.manifest(image)
    with pytest.raises(RelbuildError):
        repository.put_manifest(wanted)
    assert repository.manifest(wanted.digest) is None
    mirror_images.put(repository, store, image)
    assert not repository.put_manifest(wanted)
    assert repository.manifest(wanted.digest) == wanted
    assert repository.tags() == ()


def test_an_index_is_put_only_with_its_manifests(repository: Repository, store: Store) -> None:
    here, absent = mirror_images.image(store, 1), mirror_images.image(store, 2)
    mirror_images.put(repository, store, here)
    wanted = mirror_images.index(here, absent)
    with pytest.raises(RelbuildError):
        repository.put_manifest(wanted)
    assert repository.manifest(wanted.digest) is None
    whole = mirror_images.index(here)
    assert repository.put_manifest(whole)
    assert repository.manifest(whole.digest) == whole


# --- referrers ---------------------------------------------------------------------------------------------


def test_what_was_attached_is_listed_until_it_is_removed(
    repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    subject, other = images
    assert repository.referrers(subject.digest) == ()
    first, second = (mirror_images.attach(repository, subject.descriptor, text) for text in ("first", "second"))
    assert not repository.attach(first)
    listed = repository.referrers(subject.digest)
    assert [one.descriptor.digest for one in listed] == sorted([first.digest, second.digest])
    assert {one.artifact_type for one in listed} == {"application/vnd.example.note"}
    assert {one.descriptor.size for one in listed} == {len(first.data), len(second.data)}
    assert repository.manifest(first.digest) == first
    assert repository.referrers(other.digest) == ()
    repository.remove_referrer(first.digest)
    assert [one.descriptor.digest for one in repository.referrers(subject.digest)] == [second.digest]
    assert repository.manifest(first.digest) is None
    repository.remove_manifest(second.digest)
    assert repository.referrers(subject.digest) == () and repository.manifest(second.digest) is None
    assert repository.attach(first)
    assert [one.descriptor.digest for one in repository.referrers(subject.digest)] == [first.digest]


def test_several_are_attached_at_once_and_what_was_listed_stays(
    repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    subject, other = images
    first = mirror_images.attach(repository, subject.descriptor, "first")
    more = [mirror_images.speaks_of(subject.descriptor, text) for text in ("second", "third")]
    for _ in range(2):
        repository.attach_all(more)
        listed = [one.descriptor.digest for one in repository.referrers(subject.digest)]
        assert listed == sorted(one.digest for one in (first, *more))
    assert all(repository.manifest(one.digest) == one for one in more)
    mixed = [mirror_images.speaks_of(one.descriptor, "mixed") for one in (subject, other)]
    if repository.name:  # a layout lists each by itself
        with pytest.raises(ValueError, match="one subject"):
            repository.attach_all(mixed)


def test_what_lacks_its_blobs_is_not_attached(repository: Repository, images: tuple[Manifest, Manifest]) -> None:
    note = mirror_images.speaks_of(images[0].descriptor, "a note")
    with pytest.raises(RelbuildError):
        repository.attach(note)
    assert repository.manifest(note.digest) is None and repository.referrers(images[0].digest) == ()


# --- removing ----------------------------------------------------------------------------------------------


def test_a_tag_is_removed_only_from_where_it_is_expected(
    repository: Repository, images: tuple[Manifest, Manifest]
) -> None:
    one, two = images
    for tag in ("latest", "stable"):
        repository.point(tag, mirror_images.cleared(one), None)
    with pytest.raises(TagConflict) as caught:
        repository.remove_tag("latest", two.digest)
    assert conflict(caught) == ("latest", one.digest, False)
    assert repository.tags() == ("latest", "stable")
    repository.remove_tag("latest", one.digest)
    assert repository.tags() == ("stable",) and repository.resolve("latest") is None
    assert repository.manifest(one.digest) == one
    with pytest.raises(TagConflict) as caught:
        repository.remove_tag("latest", one.digest)
    assert conflict(caught) == ("latest", None, False)


def test_a_manifest_goes_with_its_tags_and_no_others(repository: Repository, images: tuple[Manifest, Manifest]) -> None:
    one, two = images
    for tag, manifest in (("1.0", one), ("stable", one), ("2.0", two)):
        repository.point(tag, mirror_images.cleared(manifest), None)
    for _ in range(2):
        repository.remove_manifest(one.digest)
        assert repository.manifest(one.digest) is None
        assert repository.tags() == ("2.0",) and repository.manifest("2.0") == two
