"""The digest of a layer's tar, whose segments come from several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers.tar_digest import TarDigest
from tests.support.patience import HUNG


def test_without_a_file_bytes_that_wait_for_their_turn_are_bounded_together() -> None:
    put: list[int] = []
    with TarDigest(b"", 3, limit=10) as digest:

        def ahead() -> None:
            for at in (1, 2):
                digest.put(at, b"12345678")
                put.append(at)
                digest.end(at)

        other = threading.Thread(target=ahead, daemon=True)
        other.start()
        wait_until(lambda: digest.stalled)
        assert put == [1], "the second would be one more beyond the limit"
        digest.put(0, b"first")
        digest.end(0)
        for at in range(3):
            digest.follow(at)
        other.join(HUNG)
        assert digest.finish(b"", 21) == DiffId(Digest.of(b"first" + b"12345678" * 2).hex)


def test_bytes_beyond_the_limit_wait_in_a_file_without_a_name(tmp_path: Path) -> None:
    used: list[str] = []
    with TarDigest(b"start", 3, limit=4, folder=tmp_path) as digest:
        digest.put(2, bytes(3 << 20), lambda: used.append("large"))
        digest.put(2, b"abc", lambda: used.append("small"))
        digest.put(1, b"file", lambda: used.append("second"))
        digest.end(2)
        assert used == ["large", "second"], "their buffers are free, that of what waits in memory is not"
        assert list(tmp_path.iterdir()) == []
        digest.put(0, b"first")
        digest.end(0)
        digest.end(1)
        for at in range(3):
            digest.follow(at)
        assert used == ["large", "second", "small"]
        whole = b"startfirstfile" + bytes(3 << 20) + b"abcend"
        assert digest.finish(b"end", len(whole)) == DiffId(Digest.of(whole).hex)


def test_bytes_beyond_the_limit_of_the_file_wait_for_their_turn(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        TarDigest(b"", 2, limit=0, folder=tmp_path, file_limit=10) as digest,
    ):
        digest.put(1, b"12345678")
        beyond = pool.submit(digest.put, 1, b"beyond")
        wait_until(lambda: digest.stalled)
        assert not beyond.done()
        digest.put(0, b"first")
        digest.end(0)
        digest.follow(0)
        pool.submit(digest.end, 1)
        digest.follow(1)
        beyond.result(HUNG)
        assert not digest.stalled
        assert digest.finish(b"", 19) == DiffId(Digest.of(b"first12345678beyond").hex)


def test_the_room_of_a_file_that_was_read_is_given_again(tmp_path: Path) -> None:
    with TarDigest(b"", 3, limit=0, folder=tmp_path, file_limit=10) as digest:
        digest.put(1, b"12345678")
        digest.end(0)
        digest.end(1)
        digest.follow(0)
        digest.follow(1)
        digest.put(2, b"87654321")
        digest.end(2)
        digest.follow(2)
        assert digest.finish(b"", 16) == DiffId(Digest.of(b"1234567887654321").hex)


@pytest.mark.parametrize("waiting", [False, True], ids=["later bytes", "bytes that wait for room"])
def test_an_abandoned_layer_takes_no_more_bytes(waiting: bool) -> None:
    used: list[str] = []
    with ThreadPoolExecutor(1) as pool, TarDigest(b"", 2, limit=0) as digest:
        if not waiting:
            digest.abandon()
        put = pool.submit(digest.put, 1, b"bytes", lambda: used.append("bytes"))
        if waiting:
            wait_until(lambda: digest.stalled)
            digest.abandon()
        with pytest.raises(CancelledError):
            put.result(HUNG)
        assert used == ["bytes"], "its buffer is free"
        with pytest.raises(CancelledError):
            digest.put(0, b"bytes whose turn it is")


def wait_until(reached: Callable[[], bool]) -> None:
    while not reached():
        time.sleep(0.001)


def test_a_disk_that_is_full_is_named_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with TarDigest(b"", 2, limit=0, folder=tmp_path) as digest, pytest.raises(OSError) as caught:
        digest.put(1, b"bytes")
    assert caught.value.filename == str(tmp_path)


def test_a_tar_of_another_size_is_refused() -> None:
    with TarDigest(b"", 1, limit=0) as digest:
        digest.put(0, b"bytes")
        digest.end(0)
        digest.follow(0)
        with pytest.raises(VerificationError) as caught:
            digest.finish(b"", 4)
    assert caught.value.code == "layer-malformed"
