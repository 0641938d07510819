"""A stream beyond its limit: no more of it is read than tells damage from size, with any number of threads."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest

from pipeline.compression import PIECE, READ_SIZE, Compression, layer_codec
from pipeline.errors import VerificationError
from pipeline.gzip_members import gzip_member
from pipeline.streams import decompressed

DATA = random.Random(1).randbytes(3 << 19)

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip, ours": gzip_member,
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd, ours": layer_codec(Compression.ZSTD).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}


def _refused(data: bytes, *, workers: int, limit: int = 1 << 19, own: bool = False) -> tuple[str, int]:
    """Return the code of the error, and how much was read."""
    file = io.BytesIO(data)
    with pytest.raises(VerificationError) as caught:
        for _ in decompressed(file, limit=limit, name="it", workers=workers, own=own):
            pass
    return caught.value.code, file.tell()


def _damaged(blob: bytes) -> bytes:
    """Flip a bit of the checksum, which comes last or nearly so."""
    at = -8 if blob.startswith(b"\x1f\x8b") else -3
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_stream_is_told_as_damaged_though_it_is_larger_than_it_may_be(name: str, workers: int) -> None:
    blob = CODECS[name](DATA)
    assert _refused(blob, workers=workers)[0] == "stream-too-large"
    assert _refused(_damaged(blob), workers=workers)[0] == "stream-damaged"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own", [False, True])
def test_one_that_ends_too_early_too(workers: int, own: bool) -> None:
    assert _refused(gzip_member(DATA)[:-1], workers=workers, own=own)[0] == "stream-damaged"
    assert _refused(gzip.compress(DATA, 1)[:-1], workers=workers, own=own)[0] == "stream-damaged"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["gzip, ours", "zstd, ours", "not compressed"])
def test_no_more_than_a_member_is_read_behind_the_limit(name: str, workers: int) -> None:
    member = CODECS.get(name, lambda data: data)(random.Random(2).randbytes(PIECE // 2))
    code, read = _refused(member * 20, workers=workers, limit=1 << 20)
    assert code == "stream-too-large"
    assert read < 1 + (2 + workers) * (len(member) + PIECE) + READ_SIZE
