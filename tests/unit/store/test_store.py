"""What is in the store is whole, whoever is killed when."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.store import Store, collect_garbage, write_durably


def in_flight(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "tmp").iterdir())


def test_a_blob_stands_under_its_digest(store: Store) -> None:
    with store.writer() as blob:
        blob.write(b"some ")
        blob.write(memoryview(b"bytes"))
    digest = Digest.of(b"some bytes")
    assert blob.digest == digest and blob.size == 10
    assert store.read(digest, limit=100) == b"some bytes"
    assert in_flight(store) == []


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writer() as blob:
        blob.write(b"half")
        raise RuntimeError
    assert not store.has(Digest.of(b"half"))
    assert in_flight(store) == []


def test_other_bytes_than_expected_are_refused(store: Store) -> None:
    with pytest.raises(VerificationError) as caught, store.writer(Digest.of(b"right")) as blob:
        blob.write(b"wrong")
    assert caught.value.code == "digest-mismatch"
    assert not store.has(Digest.of(b"wrong")) and not store.has(Digest.of(b"right"))
    assert in_flight(store) == []


def test_a_damaged_blob_is_noticed_and_removed(store: Store) -> None:
    digest = store.put(b"good")
    store.blob(digest).chmod(0o644)
    store.blob(digest).write_bytes(b"evil")
    with pytest.raises(VerificationError) as caught:
        store.read(digest, limit=100)
    assert caught.value.code == "blob-damaged"
    assert not store.has(digest)


def test_a_bound_on_reading(store: Store) -> None:
    with pytest.raises(VerificationError) as caught:
        store.read(store.put(b"x" * 11), limit=10)
    assert caught.value.code == "blob-too-large"


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not(store: Store) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from pipeline.store import Store, collect_garbage
store = Store.open(Path({str(store.root)!r}))
with store.temporary("held") as folder, store.writer() as blob:
    (folder / "file").write_text("x"); blob.write(b"half")
    print("ready", flush=True); time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    old = time.time() - 3600

    def age() -> None:
        for path in (store.root / "tmp").iterdir():
            os.utime(path, (old, old))

    age()
    Store.open(store.root)
    assert len(in_flight(store)) == 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    age()
    Store.open(store.root)
    assert in_flight(store) == []


def test_nobody_else_may_enter(store: Store) -> None:
    assert store.root.stat().st_mode & 0o077 == 0


def test_collecting_removes_what_was_not_used_and_keeps_what_is_named_or_young(store: Store) -> None:
    named, unused, young = store.put(b"named"), store.put(b"unused"), store.put(b"young")
    store.remember(Digest.of(b"old"), "value: 1")
    with store.temporary("tree") as folder:
        (folder / "made" / "root").mkdir(parents=True)
        store.trees.keep(folder / "made", DiffId.of(b"tar"))
    old = time.time() - 3600
    for path in (
        store.blob(named),
        store.blob(unused),
        store.trees.path(DiffId.of(b"tar")),
        store.trees.path(DiffId.of(b"tar")) / "seal",
        *(store.root / "results").glob("*/*"),
    ):
        os.utime(path, (old, old))
    freed = collect_garbage(store, time.time() - 1800, [named]).freed
    assert store.has(named) and store.has(young) and not store.has(unused)
    assert store.recall(Digest.of(b"old")) is None
    assert not store.trees.path(DiffId.of(b"tar")).exists()
    assert freed["blobs"] > 0 and in_flight(store) == []


def test_a_draft_that_a_killed_writer_left_beside_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "nginx.lock"
    left, young, swap = (tmp_path / f".nginx.lock.{end}" for end in ("abcd_123", "wxyz9876", "swp"))
    for path in (left, young, swap):
        path.write_bytes(b"half")
    for path in (left, swap):
        os.utime(path, (1, 1))
    with (tmp_path / ".nginx.lock.heldheld").open("wb") as held:
        os.utime(held.name, (1, 1))
        fcntl.flock(held, fcntl.LOCK_EX)
        write_durably(target, b"whole")
        assert Path(held.name).exists()
    assert target.read_bytes() == b"whole"
    assert (left.exists(), young.exists(), swap.exists()) == (False, True, True)
