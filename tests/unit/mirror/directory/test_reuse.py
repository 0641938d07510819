"""What a directory holds already becomes part of another image only when it is known to be whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import clone
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror import atomic_files
from pipeline.mirror import known_blobs as reuse
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.known_blobs import (
    KNOWN_SECONDS,
    SCRUB_KNOWN_SECONDS,
    HashedBy,
    KnownInFolder,
    stamp_of,
)
from pipeline.mirror.protocol import Arrival, Mirror
from pipeline.model.image import Descriptor
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.mirror_images import whole
from tests.support.mirror_kinds import FOLDER_FORMS, file_of, new_mirror, root_of

BLOB = Descriptor("text/plain", Digest.of(b"whole"), 5)


def flip(path: Path) -> bytes:
    """One bit of a file, in place; returns what it holds now."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return bytes(data)


def rotten(root: Path) -> list[bytes]:
    """What was put aside."""
    return [path.read_bytes() for path in (root / ".quarantine" / "rotten").glob("*")]


@pytest.fixture(params=FOLDER_FORMS, ids=lambda form: form.prefix)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    """A new mirror of each kind that is a folder."""
    with new_mirror(request.param, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 50_000])
def test_a_file_is_hashed_as_it_was_copied_also_piece_by_piece(
    there: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    for module in (clone, atomic_files):
        monkeypatch.setattr(module, "CLONE_PIECE", 4096)
    data = bytes(range(251)) * (size // 251 + 1)
    repository, source = there.repository("tiny"), tmp_path / "file"
    blob = Descriptor("text/plain", Digest.of(data[:size]), size)
    source.write_bytes(data[:size])
    assert repository.put_blob(blob, source) is Arrival.UPLOADED
    assert file_of(there, blob.digest).read_bytes() == data[:size]
    other = Descriptor("text/plain", Digest.of(b"other"), size)
    with pytest.raises(VerificationError) as caught:
        repository.put_blob(other, source)
    assert caught.value.code == "digest-mismatch" and not repository.has_blob(other.digest)


def test_a_rotten_layer_that_is_reused_is_healed_before_a_tag_moves(there: Mirror, store: Store) -> None:
    """One bit of a layer that two versions share, changed on the mirror: it must not become part of the second."""
    repository = there.repository("tiny")
    one, two = mirror_images.image(store, 1), mirror_images.image(store, 2)
    mirror_images.publish(repository, store, one, "1.0")
    shared = one.layers[0].blob
    assert shared == two.layers[0].blob
    spoiled = flip(file_of(there, shared.digest))
    assert repository.put_blob(shared, store.blob(shared.digest)) is Arrival.UPLOADED
    mirror_images.publish(repository, store, two, "2.0")
    repository.check_blob(shared)
    assert rotten(root_of(there)) == [spoiled]


def test_a_rotten_blob_without_good_bytes_stays_refused(there: Mirror, tmp_path: Path) -> None:
    repository = there.repository("tiny")
    repository.put_blob(BLOB, b"whole")
    flip(file_of(there, BLOB.digest))
    (tmp_path / "own").write_bytes(b"wrong")
    with pytest.raises(VerificationError):
        repository.put_blob(BLOB, tmp_path / "own")
    assert not repository.holds_whole(BLOB)


def test_a_rotten_manifest_is_written_again(there: Mirror, store: Store) -> None:
    repository = there.repository("tiny")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1.0")
    spoiled = flip(file_of(there, put.digest))
    assert repository.put_manifest(put)
    assert repository.manifest("1.0") == put
    assert rotten(root_of(there)) == [spoiled]
    assert not repository.put_manifest(put)


def test_a_planted_link_under_a_digest_is_replaced_and_not_followed(there: Mirror, tmp_path: Path) -> None:
    repository = there.repository("tiny")
    (tmp_path / "elsewhere").write_bytes(b"whole")
    repository.put_blob(BLOB, b"whole")
    file = file_of(there, BLOB.digest)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    assert not repository.holds_whole(BLOB)
    assert repository.put_blob(BLOB, b"whole") is Arrival.UPLOADED
    assert not file.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"whole"


def test_a_blob_is_read_once_while_nobody_touches_it(mirror: DirectoryMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, path = mirror.repository("tiny"), mirror.place.blob(BLOB.digest)
    repository.put_blob(BLOB, b"whole")
    reads: list[Path] = []
    real = reuse.hash_file

    def counted(root: Path, path: Path, advance: Callable[[int], None] = lambda size: None) -> reuse.Hashed | None:
        reads.append(path)
        return real(root, path, advance)

    monkeypatch.setattr(reuse, "hash_file", counted)
    monkeypatch.setattr(reuse, "SETTLED_NANOSECONDS", 0)
    for _ in range(3):
        assert repository.holds_whole(BLOB)
    assert len(reads) == 1
    os.utime(path)
    assert repository.holds_whole(BLOB)
    assert len(reads) == 2
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of change cannot be set back
    assert not repository.holds_whole(BLOB)


def test_what_changed_just_now_is_not_remembered(mirror: DirectoryMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change within the same tick of the kernel's clock would leave the same stamp."""
    repository = mirror.repository("tiny")
    repository.put_blob(BLOB, b"whole")
    monkeypatch.setattr(reuse, "SETTLED_NANOSECONDS", 3600 * 10**9)
    assert repository.holds_whole(BLOB)
    found = stamp_of(mirror.place.blob(BLOB.digest).stat())
    assert not mirror.place.known.believes(BLOB.digest, found)


def test_how_long_it_is_believed_and_by_whom(mirror: DirectoryMirror) -> None:
    now = [1_000_000.0]
    known = KnownInFolder(mirror.place.root / ".scrub" / "blobs", mirror.place.drafts, lambda: now[0])
    stamp = (5, 1, 2, 3)
    known.note(BLOB.digest, stamp, HashedBy.SCRUB)
    known.note(BLOB.digest, stamp, HashedBy.PUBLISHER)  # says no less than the scrub did
    for later, believed in ((0.0, True), (KNOWN_SECONDS + 1, True), (SCRUB_KNOWN_SECONDS + 1, False), (-1.0, False)):
        now[0] = 1_000_000.0 + later
        assert known.believes(BLOB.digest, stamp) == believed, later
    now[0] = 1_000_000.0
    assert not known.believes(BLOB.digest, (5, 1, 2, 4))
    known.forget(BLOB.digest)
    assert not known.believes(BLOB.digest, stamp)
    known.note(BLOB.digest, stamp, HashedBy.PUBLISHER)
    now[0] += KNOWN_SECONDS + 1
    assert not known.believes(BLOB.digest, stamp)


_INFINITE = b'{"a":[1e999,1,1,1,1,"scrub"]}'


@pytest.mark.parametrize("data", [b"", b"null", b"[1]", b'{"a":1}', b'{"a":[1,2]}', b"\xff", b"[" * 100_000, _INFINITE])
def test_a_damaged_record_is_no_knowledge(mirror: DirectoryMirror, data: bytes) -> None:
    known = mirror.place.known
    known.note(BLOB.digest, (5, 1, 2, 3), HashedBy.SCRUB)
    (mirror.place.root / ".scrub" / "blobs" / BLOB.digest.hex[:2]).write_bytes(data)
    assert not known.believes(BLOB.digest, (5, 1, 2, 3))
    known.note(BLOB.digest, (5, 1, 2, 3), HashedBy.SCRUB)
    assert known.believes(BLOB.digest, (5, 1, 2, 3))


def test_rotten_files_leave_the_quarantine_in_time(mirror: DirectoryMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    repository.put_blob(BLOB, b"whole")
    flip(mirror.place.blob(BLOB.digest))
    repository.put_blob(BLOB, b"whole")
    with mirror.pruning(1) as pruning:
        pruning.empty_quarantine(time.time() - 3600)
        assert len(rotten(mirror.place.root)) == 1
        assert pruning.quarantined() == ()
        pruning.empty_quarantine(time.time() + 3600)
        assert rotten(mirror.place.root) == []
    whole(mirror)
