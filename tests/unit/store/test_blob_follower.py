"""Reading a blob while it is written."""

from __future__ import annotations

import os
import threading
import zlib
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.store import BlobFollower, Store
from tests.support.patience import HUNG


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def read(follower: BlobFollower, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: follower.readinto(memoryview(buffer))])


def read_all(follower: BlobFollower, found: list[bytes]) -> None:
    with follower:
        while data := read(follower, 1000):
            found.append(data)


def test_what_is_written_is_read_at_once_and_its_end_is_seen(store: Store) -> None:
    found: list[bytes] = []
    content = os.urandom(5000)
    with store.writer() as blob:
        follower = blob.follow()
        assert follower is not None
        reader = threading.Thread(target=read_all, args=(follower, found))
        reader.start()
        blob.write(content[:10])
        while not found:
            reader.join(0.01)
        assert found == [content[:10]], "although the writer has more room in its buffer"
        blob.write(content[10:])
    reader.join(HUNG)
    assert not reader.is_alive() and b"".join(found) == content and max(map(len, found)) <= 1000
    assert store.read(Digest.of(content), limit=5000) == content


def test_who_begins_late_reads_from_the_beginning_and_what_no_write_follows(store: Store) -> None:
    found: list[bytes] = []
    with store.writer() as blob:
        blob.write(b"first")
        follower = blob.follow()
        assert follower is not None
    read_all(follower, found)
    assert found == [b"first"]


def test_there_is_nothing_to_follow_once_all_is_written(store: Store) -> None:
    with store.writer() as blob:
        blob.write(b"all")
    assert blob.follow() is None


def test_a_reader_of_what_is_given_up_ends_with_an_error(store: Store) -> None:
    with pytest.raises(ValueError, match="given up"), store.writer() as blob:
        follower = blob.follow()
        assert follower is not None
        blob.write(b"part")
        raise ValueError("given up")
    with follower, pytest.raises(CancelledError):
        read(follower, 10)


def test_the_file_is_read_and_not_what_the_writer_was_given(store: Store) -> None:
    with store.writer(Digest.of(b"written")) as blob:
        follower = blob.follow()
        assert follower is not None
        blob.write(b"written")
        os.pwrite(blob._file.fileno(), b"DAMAGED", 0)
        with follower:
            assert read(follower, 100) == b"DAMAGED"


# --- who follows it hashes it ------------------------------------------------------------------------------


def test_a_blob_that_is_not_hashed_is_kept_under_what_was_read_of_it(store: Store) -> None:
    content = os.urandom(5000)
    found: list[bytes] = []
    with store.writer(hashed=False) as blob:
        follower = blob.follow()
        assert follower is not None
        blob.write(content[:10], content[10:20])
        blob.write(content[20:])
        blob.finish()
        read_all(follower, found)
        data = b"".join(found)
        blob.identify(Digest.of(data), size=len(data), checksum=zlib.crc32(data))
    assert blob.digest == Digest.of(content) and store.read(blob.digest, limit=5000) == content


@pytest.mark.parametrize("read_back", [b"contenT", b"conten", b"content "])
def test_a_blob_of_which_other_bytes_were_read_is_not_kept(store: Store, read_back: bytes) -> None:
    with pytest.raises(VerificationError, match="were written") as caught, store.writer(hashed=False) as blob:
        blob.write(b"content")
        blob.finish()
        blob.identify(Digest.of(read_back), size=len(read_back), checksum=zlib.crc32(read_back))
    assert caught.value.code == "digest-mismatch"
    assert not store.has(Digest.of(read_back)) and not list((store.root / "tmp").iterdir())


def test_a_blob_that_nobody_has_hashed_is_not_kept(store: Store) -> None:
    with pytest.raises(ValueError, match="nobody has hashed"), store.writer(hashed=False) as blob:
        blob.write(b"content")
    assert not list((store.root / "tmp").iterdir())
