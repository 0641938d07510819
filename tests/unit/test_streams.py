"""Codecs: the same bytes every time, read by everybody, bounded, and damage is noticed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import VerificationError
from pipeline.streams import CODECS, PIECE, ahead, decompressed, open_compressed

DATA = os.urandom(300_000) + bytes(2 * PIECE) + b"text " * 100_000
PIECES = [DATA[at : at + PIECE] for at in range(0, len(DATA), PIECE)]


def compressed(codec: str) -> bytes:
    return b"".join(CODECS[codec](piece) for piece in PIECES)


def read(data: bytes, *, limit: int = 1 << 30, workers: int = 0) -> bytes:
    return b"".join(decompressed(io.BytesIO(data), limit=limit, name="it", workers=workers))


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "ours, gzip": lambda data: compressed("gzip"),
    "ours, zstd": lambda data: compressed("zstd"),
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip, two members": lambda data: gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 1),
    "gzip, ours then another's": lambda data: CODECS["gzip"](data[:1000]) + gzip.compress(data[1000:], 1),
    "gzip, padded": lambda data: gzip.compress(data, 1) + bytes(512),
    "zstd": lambda data: zstandard.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "xz, two streams": lambda data: lzma.compress(data[:9], preset=0) + lzma.compress(data[9:], preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "bzip2, two streams": lambda data: bz2.compress(data[:9], 1) + bz2.compress(data[9:], 1),
    "not compressed": lambda data: data,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 3])
def test_every_form_is_told_by_its_first_bytes_and_read(form: str, workers: int) -> None:
    assert read(FORMS[form](DATA), workers=workers) == DATA


@pytest.mark.parametrize(("codec", "command"), [("gzip", ["gzip", "-dc"]), ("zstd", ["zstd", "-dc"])])
def test_the_formats_own_tools_read_what_is_written(codec: str, command: list[str]) -> None:
    assert subprocess.run(command, input=compressed(codec), capture_output=True, check=True).stdout == DATA


@pytest.mark.parametrize("codec", CODECS)
def test_the_bytes_do_not_depend_on_the_thread_that_makes_them(codec: str) -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(CODECS[codec](PIECES[0]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {CODECS[codec](PIECES[0])}


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5), st.sampled_from(sorted(CODECS)))
def test_pieces_cut_anywhere_come_back_as_one(data: bytes, cuts: list[int], codec: str) -> None:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [data[a:b] for a, b in pairwise(places)]
    assert read(b"".join(CODECS[codec](part) for part in parts)) == data


@pytest.mark.parametrize("form", [form for form in FORMS if form != "not compressed"])
def test_more_than_the_limit_is_not_read(form: str) -> None:
    with pytest.raises(VerificationError) as caught:
        read(FORMS[form](DATA), limit=len(DATA) - 1)
    assert caught.value.code == "stream-too-large"


@pytest.mark.parametrize("form", [form for form in FORMS if "zstd" not in form and form != "not compressed"])
def test_a_truncated_stream_is_refused(form: str) -> None:
    with pytest.raises(VerificationError) as caught:
        read(FORMS[form](DATA).rstrip(b"\0")[:-5])
    assert caught.value.code == "stream-damaged"


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("zstd", "not compressed")])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_byte_is_noticed(form: str, workers: int) -> None:
    data = bytearray(FORMS[form](DATA))
    data[150_000] ^= 0x10
    with pytest.raises(VerificationError) as caught:
        read(bytes(data), workers=workers)
    assert caught.value.code == "stream-damaged"


def test_a_member_that_claims_to_be_huge_is_not_believed() -> None:
    member = bytearray(CODECS["gzip"](b"x"))
    member[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(VerificationError) as caught:
        read(bytes(member))
    assert caught.value.code == "stream-damaged"


@settings(max_examples=300)
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x1f\x8b\x08\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"])
)
def test_any_bytes_are_read_or_refused(data: bytes, start: bytes) -> None:
    try:
        read(start + data, limit=1 << 16)
    except VerificationError as error:
        assert error.code in ("stream-damaged", "stream-too-large")


def test_a_compressed_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "it.zst"
    path.write_bytes(compressed("zstd"))
    with open_compressed(path) as file:
        assert file.read(10) == DATA[:10]
        assert file.read() == DATA[10:]
    assert file.closed


def test_ahead_passes_on_items_and_errors() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("at two")

    assert list(ahead(iter(range(100)))) == list(range(100))
    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="at two"):
        next(items)


def test_ahead_stops_its_thread_when_nobody_listens() -> None:
    before = threading.active_count()
    items = ahead(iter(range(10**9)), depth=2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
