"""Files of this machine that are copied into the store: hashed as they pass by, whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Download, download, fetch
from tests.support.misbehaving_server import CONTENT, DIGEST, NETWORK, MisbehavingServer, partial
from tests.support.recorded_pools import recorded_pools


class Passing:
    """What passed by of each file, and the inode that the store had it under."""

    def __init__(self) -> None:
        self.content = b""
        self.inode = 0

    def update(self, piece: bytes | memoryview) -> None:
        self.content += piece

    def copied(self, status: os.stat_result) -> None:
        self.inode = status.st_ino


def get_passing(store: Store, url: str) -> Passing | None:
    made: list[Passing] = []

    def passing(target: Digest) -> Passing:
        assert target == DIGEST
        made.append(Passing())
        return made[-1]

    fetch(store, [Download((url,), DIGEST, len(CONTENT), "thing")], progress=QUIET, network=NETWORK, passing=passing)
    return made[-1] if made else None


def test_what_is_copied_from_this_machine_passes_by_as_a_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    found = get_passing(store, (tmp_path / "thing").as_uri())
    assert found is not None and found.content == CONTENT
    assert found.inode == store.blob(DIGEST).stat().st_ino
    assert stat.S_IMODE(store.blob(DIGEST).stat().st_mode) == 0o644
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_copy_that_was_begun_by_a_killed_run_is_ended_and_does_not_pass_by(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    for left in (CONTENT[:300_000], CONTENT):
        partial(store, left)
        found = get_passing(store, (tmp_path / "thing").as_uri())
        assert found is not None and not found.content and not found.inode
        assert store.blob(DIGEST).read_bytes() == CONTENT
        store.blob(DIGEST).unlink()


@pytest.mark.parametrize("damaged", [b"damaged" * 1000, CONTENT[:-1] + b"?", CONTENT[:1] + b"?"])
def test_a_damaged_part_is_dropped_and_the_file_copied_from_its_start(
    damaged: bytes, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    partial(store, damaged)
    found = get_passing(store, (tmp_path / "thing").as_uri())
    assert found is not None and found.content == CONTENT
    assert found.inode == store.blob(DIGEST).stat().st_ino
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_damaged_part_of_a_file_of_other_bytes_is_copied_once_more_and_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT[:-1] + b"?")
    partial(store, b"damaged" * 1000)
    with pytest.raises(VerificationError, match=f"it has {len(CONTENT)} bytes with sha256") as caught:
        get_passing(store, (tmp_path / "thing").as_uri())
    assert caught.value.code == "download-mismatch"
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_file_of_this_machine_that_is_too_short_is_refused_at_once(store: Store, tmp_path: Path) -> None:
    """It has ended: no more would come of another attempt, as from a server that broke off."""
    (tmp_path / "thing").write_bytes(CONTENT[:1000])
    with pytest.raises(VerificationError, match="it has 1000 bytes with sha256") as caught:
        get_passing(store, (tmp_path / "thing").as_uri())
    assert caught.value.code == "download-mismatch"
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_copy_of_other_bytes_is_not_told_of(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT[:-1] + b"?")
    made: list[Passing] = []

    def passing(target: Digest) -> Passing:
        made.append(Passing())
        return made[-1]

    one = Download(((tmp_path / "thing").as_uri(),), DIGEST, len(CONTENT), "thing")
    with pytest.raises(VerificationError):
        fetch(store, [one], progress=QUIET, network=NETWORK, passing=passing)
    assert [found.inode for found in made] == [0]


def test_a_file_that_cannot_be_closed_is_no_blob(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full NFS, where close(2) tells of what could not be written."""
    (tmp_path / "thing").write_bytes(CONTENT)
    real, failed = os.close, list[int]()

    def close(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        real(handle)
        if path.name == DIGEST.hex and not failed:
            failed.append(handle)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as full:
        full.setattr(os, "close", close)
        with pytest.raises(OSError, match="quota") as caught:
            get_passing(store, (tmp_path / "thing").as_uri())
    assert failed and caught.value.filename == str(store.metadata / "partial" / DIGEST.hex)
    assert not store.has(DIGEST)
    get_passing(store, (tmp_path / "thing").as_uri())
    assert store.sound(DIGEST)


def test_what_comes_over_a_network_does_not_pass_by(misbehaving: MisbehavingServer, store: Store) -> None:
    assert get_passing(store, f"{misbehaving.url}/good") is None
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_file_that_comes_in_place_of_the_written_one_is_not_noted_as_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "written").write_bytes(CONTENT)
    store.blob(DIGEST).write_bytes(CONTENT[1:])
    store.note_whole(DIGEST, (tmp_path / "written").stat())
    assert not store.sound(DIGEST)


@pytest.mark.parametrize(("processors", "local", "mixed"), [(1, 1, 4), (3, 3, 4), (16, 4, 4)])
def test_local_files_are_copied_by_as_many_threads_as_there_are_processors(
    misbehaving: MisbehavingServer,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    local: int,
    mixed: int,
) -> None:
    monkeypatch.setattr(download, "whole_processors", lambda: processors)
    pools = recorded_pools(monkeypatch)
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    first, second = (
        Download(((tmp_path / name).as_uri(),), Digest.of(name.encode()), 3, name) for name in ("one", "two")
    )
    fetch(store, [first], progress=QUIET, parallel=4)
    fetch(store, [second, Download((f"{misbehaving.url}/good",), DIGEST, None, "url")], progress=QUIET, parallel=4)
    assert pools == [local, mixed]
