"""Codecs: the same bytes every time, read by everybody, bounded, and damage is noticed."""

from __future__ import annotations

import bz2
import functools
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

from pipeline import compression
from pipeline.compression import (
    CODECS,
    PIECE,
    START_SIZE,
    Codec,
    Compression,
    codec_of,
    layer_codec,
)
from pipeline.errors import STORE_DAMAGE_HINT, VerificationError
from pipeline.gzip_members import gzip_member
from pipeline.oci.media_types import LAYER_TAR, LAYERS
from pipeline.streams import decompressed, open_compressed, prefetch
from tests.support.examples import examples

DATA = os.urandom(300_000) + bytes(2 * PIECE) + b"text " * 100_000
PIECES = [DATA[at : at + PIECE] for at in range(0, len(DATA), PIECE)]


@functools.cache
def compressed(codec: Compression) -> bytes:
    return b"".join(layer_codec(codec).compress(piece) for piece in PIECES)


def read(data: bytes, *, limit: int = 1 << 30, workers: int = 0) -> bytes:
    return b"".join(decompressed(io.BytesIO(data), limit=limit, name="it", workers=workers))


STREAMING = [codec for codec in Compression if layer_codec(codec).stream]


def streamed(codec: Compression, data: bytes, *cuts: int) -> bytes:
    begin = layer_codec(codec).stream
    assert begin is not None
    stream = begin()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return b"".join([*(stream.compress(memoryview(data)[a:b]) for a, b in pairwise(places)), stream.flush()])


FORMS: dict[str, Callable[[bytes], bytes]] = {
    **{f"ours, {codec}": lambda data, codec=codec: compressed(codec) for codec in Compression},  # type: ignore[misc]
    **{f"ours, {codec}, one member": lambda data, codec=codec: streamed(codec, data) for codec in STREAMING},  # type: ignore[misc]
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip, two members": lambda data: gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 1),
    "gzip, ours then another's": lambda data: gzip_member(data[:1000]) + gzip.compress(data[1000:], 1),
    "zstd": lambda data: zstandard.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "xz, two streams": lambda data: lzma.compress(data[:9], preset=0) + lzma.compress(data[9:], preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "bzip2, two streams": lambda data: bz2.compress(data[:9], 1) + bz2.compress(data[9:], 1),
    "not compressed": lambda data: data,
}


@functools.cache
def made(form: str) -> bytes:
    """DATA in a form, made once."""
    return FORMS[form](DATA)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 3])
def test_every_form_is_told_by_its_first_bytes_and_read(form: str, workers: int) -> None:
    assert read(made(form), workers=workers) == DATA


@pytest.mark.parametrize("codec", STREAMING)
@given(cuts=st.lists(st.integers(0, 1 << 20), max_size=5))
def test_a_member_of_several_pieces_does_not_depend_on_where_they_are_cut(codec: Compression, cuts: list[int]) -> None:
    data = DATA[: 1 << 20]
    packed = streamed(codec, data, *cuts)
    assert packed == streamed(codec, data)
    assert read(packed) == data


def test_zstd_finds_what_is_there_twice_within_a_window_that_every_decoder_takes() -> None:
    data = os.urandom(5 << 20) * 2
    packed = streamed(Compression.ZSTD, data)
    assert len(packed) < 6 << 20
    assert zstandard.get_frame_parameters(packed).window_size == 8 << 20, "RFC 8878, 3.1.1.1.2"


@pytest.mark.parametrize("codec", Compression)
def test_the_formats_own_tools_read_what_is_written(codec: Compression) -> None:
    tool = {"gzip": "gzip", "zstd": "zstd"}[layer_codec(codec).reads.name]
    assert subprocess.run([tool, "-dc"], input=compressed(codec), capture_output=True, check=True).stdout == DATA


@pytest.mark.parametrize("codec", Compression)
def test_what_is_written_is_told_as_the_codec_that_reads_it(codec: Compression) -> None:
    start = layer_codec(codec).compress(b"x")[:START_SIZE]
    assert [one for one in CODECS if one.starts(start)] == [layer_codec(codec).reads] == [codec_of(start)]


@pytest.mark.parametrize("codec", Compression)
def test_a_layer_has_a_media_type_of_the_image_specification(codec: Compression) -> None:
    """image-spec 1.1, layer.md: clients unpack no other."""
    assert LAYERS[codec] == LAYER_TAR + layer_codec(codec).media_suffix
    assert LAYERS[codec].removeprefix("application/vnd.oci.image.layer.v1.") in ("tar+gzip", "tar+zstd")


BY_NAME_ALONE = {"LZMA"}
"""Codecs whose streams do not begin with a magic number: who reads one names it."""


def test_every_codec_is_listed() -> None:
    declared = {name: value for name, value in vars(compression).items() if isinstance(value, Codec)}
    missing = {name for name, codec in declared.items() if codec not in CODECS}
    assert missing == BY_NAME_ALONE, f"list {missing - BY_NAME_ALONE} in pipeline/compression.py: CODECS"
    assert not [codec for codec in Compression if layer_codec(codec).reads not in CODECS]


@pytest.mark.parametrize("codec", Compression)
def test_the_bytes_do_not_depend_on_the_thread_that_makes_them(codec: Compression) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(layer_codec(codec).compress(PIECES[0]))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {layer_codec(codec).compress(PIECES[0])}


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5), st.sampled_from(Compression))
def test_pieces_cut_anywhere_come_back_as_one(data: bytes, cuts: list[int], codec: Compression) -> None:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [data[a:b] for a, b in pairwise(places)]
    assert read(b"".join(layer_codec(codec).compress(part) for part in parts)) == data


@pytest.mark.parametrize("form", [form for form in FORMS if form != "not compressed"])
def test_more_than_the_limit_is_not_read(form: str) -> None:
    with pytest.raises(VerificationError) as caught:
        read(made(form), limit=len(DATA) - 1)
    assert caught.value.code == "stream-too-large"


@pytest.mark.parametrize("form", [form for form in FORMS if "zstd" not in form and form != "not compressed"])
def test_a_truncated_stream_is_refused(form: str) -> None:
    with pytest.raises(VerificationError) as caught:
        read(made(form)[:-5])
    assert caught.value.code == "stream-damaged"


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("zstd", "not compressed")])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_byte_is_noticed(form: str, workers: int) -> None:
    data = bytearray(made(form))
    data[150_000] ^= 0x10
    with pytest.raises(VerificationError) as caught:
        read(bytes(data), workers=workers)
    assert caught.value.code == "stream-damaged"


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("codec", Compression)
def test_only_damage_of_this_store_is_told_with_its_way_out(codec: Compression, own: bool) -> None:
    """A stream of a mirror or a package comes from elsewhere, and who reads it says where from."""
    damaged = compressed(codec)[:-30] + bytes(30)
    with pytest.raises(VerificationError) as caught:
        for _ in decompressed(io.BytesIO(damaged), limit=1 << 30, name="it", own=own):
            pass
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("stream-damaged", STORE_DAMAGE_HINT if own else None)


@settings(max_examples=examples(300))
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
    path.write_bytes(compressed(Compression.ZSTD))
    with open_compressed(path) as file:
        assert file.read(10) == DATA[:10]
        assert file.read() == DATA[10:]
    assert file.closed


def test_ahead_passes_on_items_and_errors() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("at two")

    assert list(prefetch(iter(range(100)))) == list(range(100))
    items = prefetch(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="at two"):
        next(items)


def test_ahead_stops_its_thread_when_nobody_listens() -> None:
    before = threading.active_count()
    items = prefetch(iter(range(10**9)), depth=2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
