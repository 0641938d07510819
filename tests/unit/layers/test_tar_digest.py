"""The digest of a layer's tar, whose segments come from several threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers.tar_digest import TarDigest


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
        other.join(0.2)
        assert put == [1], "the second would be one more beyond the limit"
        digest.put(0, b"first")
        digest.end(0)
        for at in range(3):
            digest.follow(at)
        other.join(30)
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
