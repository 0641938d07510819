"""xz streams may have padding between and behind them: zero bytes in multiples of four, and nothing else."""

from __future__ import annotations

import io
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import input_slices
from pipeline.compression import XZ
from pipeline.errors import VerificationError
from pipeline.input_slices import FIRST_SLICE
from pipeline.streams import decompressed

PADDINGS = st.sampled_from([0, 4, 8, FIRST_SLICE - 4, FIRST_SLICE, FIRST_SLICE + 4, (1 << 20) - 8, (3 << 20) + 4])
ODD = st.sampled_from([1, 2, 3, 5, FIRST_SLICE - 1, FIRST_SLICE + 1, (1 << 20) + 2])
CONTENTS = st.sampled_from([b"", b"hello", bytes(100_000), b"\0" * 3])


def read(data: bytes) -> bytes | None:
    """What is decompressed; None if it is refused."""
    try:
        return b"".join(decompressed(io.BytesIO(data), limit=64 << 20, name="it", codec=XZ))
    except VerificationError as error:
        assert error.code == "stream-damaged"
        return None


@given(st.lists(st.tuples(CONTENTS, PADDINGS), min_size=1, max_size=4))
def test_padding_is_skipped_between_streams_and_behind_the_last(streams: list[tuple[bytes, int]]) -> None:
    data = b"".join(lzma.compress(content) + bytes(padding) for content, padding in streams)
    assert read(data) == b"".join(content for content, _ in streams)


@given(st.lists(st.tuples(CONTENTS, PADDINGS), max_size=2), ODD, st.booleans())
def test_padding_of_another_size_is_damage(streams: list[tuple[bytes, int]], odd: int, last: bool) -> None:
    data = b"".join(lzma.compress(content) + bytes(padding) for content, padding in [*streams, (b"more", odd)])
    assert read(data + (b"" if last else lzma.compress(b"behind"))) is None


@pytest.mark.parametrize("junk", [b"\1", b"\0\0\0\1", b"\0\0\0\0junk", bytes(2000) + b"j"])
def test_what_is_no_zero_byte_is_damage(junk: bytes) -> None:
    assert read(lzma.compress(b"hello") + junk) is None


@pytest.mark.parametrize("size", [4, 2000])
def test_there_is_no_padding_before_the_first_stream(size: int) -> None:
    assert read(bytes(size)) is None
    assert read(bytes(size) + lzma.compress(b"hello")) is None


@pytest.mark.parametrize("padding", [0, 4, 12])
def test_only_the_first_bytes_after_a_stream_are_copied(padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of 32 bytes with nothing in them would else cost a copy of all that was read, each of them."""
    copied = list[int]()

    def counted(piece: memoryview) -> bytes:
        copied.append(len(piece))
        return piece.tobytes()

    monkeypatch.setattr(input_slices, "bytes", counted, raising=False)
    assert read((lzma.compress(b"") + bytes(padding)) * 5000) == b""
    assert len(copied) >= 5000 and sum(copied) <= 5010 * FIRST_SLICE
