"""Codecs: the same bytes every time, read by everybody, bounded, and damage is noticed."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import deflate
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import compression
from pipeline.compression import (
    CODECS,
    PIECE,
    READ_SIZE,
    START_SIZE,
    Codec,
    Compression,
    codec_of,
    layer_codec,
)
from pipeline.errors import STORE_DAMAGE_HINT, VerificationError
from pipeline.gzip_members import decompress_own_gzip, gzip_member
from pipeline.oci.media_types import LAYER_TAR, LAYERS
from pipeline.streams import decompressed, open_compressed, prefetch
from tests.support.crafted_deflate import by_zlib, fixed_block, member_of, reserved_codes, stored_block
from tests.support.examples import examples
from tests.support.hidden_members import HEADER, TRAILER, hiding, with_body

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


def test_a_member_that_claims_to_be_huge_is_not_believed() -> None:
    member = bytearray(gzip_member(b"x"))
    member[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(VerificationError) as caught:
        read(bytes(member))
    assert caught.value.code == "stream-damaged"


def of_size_0(body: bytes) -> bytes:
    """A member of our form that claims to have nothing in it."""
    return with_body(body, gzip_member(b""))


NOTHING = gzip_member(b"")[20:-8]
INVALID = {
    "no deflate stream": of_size_0(b"\xff" * 100),
    "a body with something in it": of_size_0(gzip_member(b"hello")[20:-8]),
    "bytes behind the body": of_size_0(NOTHING + b"junk"),
    "a body that ends too early": of_size_0(b""),
    "bytes behind our members": gzip_member(b"hello") + b"junk" * 10,
    "padding behind our members": gzip_member(b"hello") + bytes(512),
    "a byte of padding behind our members": gzip_member(b"hello") + b"\0",
    "bytes behind another's member": gzip.compress(b"hello") + b"junk",
    "padding behind another's member": gzip.compress(b"hello") + bytes(512),
    "a byte of padding behind another's member": gzip.compress(b"hello") + b"\0",
    "bytes behind padding": gzip.compress(b"hello") + bytes(512) + b"junk",
    "a member behind padding": gzip.compress(b"hello") + bytes(512) + gzip.compress(b"hello"),
    "a member behind padding that is read in several pieces": gzip.compress(b"hello")
    + bytes(3 * READ_SIZE)
    + gzip.compress(b"hello"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", INVALID)
def test_what_is_no_member_is_refused(what: str, workers: int) -> None:
    """Other programs read other bytes of it, or none."""
    with pytest.raises(VerificationError) as caught:
        read(INVALID[what], workers=workers)
    assert caught.value.code == "stream-damaged"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_with_nothing_in_it_is_read(workers: int) -> None:
    assert of_size_0(NOTHING) == gzip_member(b"")
    assert read(gzip_member(b"") + gzip_member(b"hello") + gzip_member(b""), workers=workers) == b"hello"


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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"hello " * 1000])
def test_a_member_of_this_store_is_held_to_its_checksum_and_size(content: bytes, workers: int) -> None:
    member = gzip_member(content)
    body = member[HEADER:-TRAILER]
    assert b"".join(decompress_own_gzip(buffered(member), workers)) == content
    wrong = zlib.crc32(content) ^ 1
    other_checksum = with_body(body, member[:-TRAILER] + struct.pack("<II", wrong, len(content)))
    with pytest.raises(EOFError, match="checksum"):
        b"".join(decompress_own_gzip(buffered(other_checksum), workers))
    # As many as libdeflate would be given memory for.
    size = with_body(body, member[:-TRAILER] + struct.pack("<II", zlib.crc32(content), (4 << 20) + 1))
    with pytest.raises(EOFError, match="larger than any"):
        b"".join(decompress_own_gzip(buffered(size), workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_is_as_large_as_any_of_this_store_and_no_larger(workers: int) -> None:
    whole = gzip_member(bytes(4 << 20))
    assert b"".join(decompress_own_gzip(buffered(whole), workers)) == bytes(4 << 20)
    larger = gzip_member(bytes((4 << 20) + 1))
    with pytest.raises(EOFError, match="larger than any"):
        b"".join(decompress_own_gzip(buffered(larger), workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", hiding(b"hello " * 1000))
def test_a_member_with_something_behind_its_stream_is_read_as_by_zlib(what: str, workers: int) -> None:
    """Other programs read it too, or fail."""
    sound, member = gzip_member(b"hello " * 1000), hiding(b"hello " * 1000)[what]
    assert by_zlib(member) != b"hello " * 1000
    for data in (member, sound + member, member + sound, 5 * sound + member + 5 * sound):
        assert read_or_refused(data, workers=workers) == by_zlib(data)


def read_or_refused(data: bytes, *, workers: int) -> bytes | None:
    try:
        return read(data, workers=workers)
    except VerificationError as error:
        assert error.code == "stream-damaged"
        return None


@settings(max_examples=examples(200))
@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=40), st.booleans())
def test_whatever_follows_a_stream_in_its_member_is_refused(content: bytes, hidden: bytes, trailer: bool) -> None:
    sound = gzip_member(content)
    behind = (sound[-TRAILER:] if trailer else b"") + hidden
    assert read(sound) == content
    data = with_body(sound[HEADER:-TRAILER] + behind, sound)
    assert by_zlib(data) is None
    for workers in (0, 2):
        assert read_or_refused(data, workers=workers) is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", reserved_codes())
def test_codes_that_the_format_does_not_have_are_refused(what: str, workers: int) -> None:
    """libdeflate takes them for sound, and zlib, gzip and Go refuse them."""
    member = reserved_codes()[what]
    assert b"".join(decompress_own_gzip(buffered(member), workers)), "libdeflate reads it, and its trailer matches"
    assert by_zlib(member) is None
    for data in (member, gzip_member(b"sound") + member, member + gzip_member(b"sound")):
        assert read_or_refused(data, workers=workers) is None


@pytest.mark.parametrize("codes", [[97, 285, (0, 0)], [*24577 * [97], 257, (29, 13)], [*range(256)]])
def test_the_last_codes_that_the_format_has_are_read(codes: list[int | tuple[int, int]]) -> None:
    content = zlib.decompress(fixed_block(codes), wbits=-15)
    assert read(member_of(fixed_block(codes), content), workers=2) == content


_SYMBOLS = st.one_of(st.integers(97, 99), st.tuples(st.sampled_from([257, 264, 285, 286, 287]), st.integers(0, 31)))


@settings(max_examples=examples(500))
@given(st.lists(_SYMBOLS, max_size=30), st.integers(0, 2))
def test_crafted_streams_are_read_as_by_zlib(symbols: list[int | tuple[int, int]], before: int) -> None:
    codes: list[int | tuple[int, int]] = []
    for one in symbols:
        codes += [one] if isinstance(one, int) else [one[0], (one[1], max(0, one[1] // 2 - 1) if one[1] < 30 else 13)]
    compare_with_zlib(stored_block(b"a" * 32768) + fixed_block(codes), before)


@settings(max_examples=examples(500))
@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), max_size=3),
    st.integers(0, 9),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY]),
    st.integers(0, 2),
)
def test_mutated_streams_are_read_as_by_zlib(
    flips: list[tuple[int, int]], level: int, strategy: int, before: int
) -> None:
    made = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    body = bytearray(made.compress(b"The quick brown fox jumps over the lazy dog. " * 8) + made.flush())
    for at, bit in flips:
        body[at % len(body)] ^= 1 << bit
    compare_with_zlib(bytes(body), before)


def compare_with_zlib(body: bytes, before: int) -> None:
    """Compare what is read of a member with zlib's; its trailer is that of what libdeflate makes of `body`, if any."""
    content: bytes | bytearray = b""
    for size in (4000, 400_000):
        with contextlib.suppress(deflate.DeflateError):
            content = deflate.deflate_decompress(body, size)
    data = before * gzip_member(b"before") + member_of(body, bytes(content)) + gzip_member(b"after")
    wanted = by_zlib(data)
    for workers in (0, 2):
        assert read_or_refused(data, workers=workers) == wanted


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("length", [0, 1, 20, 28, 29, 35, 60, 1000, 4 << 20, 1 << 31, (1 << 32) - 1, -1])
def test_a_sound_member_whose_field_is_no_length_is_read(length: int, workers: int) -> None:
    """Its two letters may mean something else to who made it."""
    sound = gzip_member(b"hello")
    other = member_of(sound[HEADER:-TRAILER], b"hello", length=length if length >= 0 else len(sound) - 1)
    for data in (other, 5 * sound + other, other + 5 * sound, other * 9):
        assert read(data, workers=workers) == by_zlib(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_in_relbuilds_form_with_more_content_than_relbuilds_is_read(workers: int) -> None:
    content = bytes(2 * PIECE + 5)
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = 3 * gzip_member(b"x") + member_of(made.compress(content) + made.flush(), content)
    assert read(data, workers=workers) == b"xxx" + content


@pytest.mark.parametrize("workers", [0, 2])
def test_only_what_was_compressed_here_is_read_by_libdeflate(workers: int) -> None:
    def kinds(*, own: bool) -> set[type]:
        return {type(one) for one in decompressed(io.BytesIO(data), limit=1 << 20, name="it", workers=workers, own=own)}

    data = b"".join(map(gzip_member, [b"first" * 100, os.urandom(70_000), b"third" * 50_000]))
    assert kinds(own=True) == {bytearray}, "libdeflate's"
    assert kinds(own=False) == {bytes}, "zlib's"


def buffered(data: bytes) -> Any:
    return io.BufferedReader(io.BytesIO(data))  # type: ignore[type-var]


class _InSmallReads(io.RawIOBase):
    """A file that gives at most 13 bytes at once, as one may that is being written."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = min(13, len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@pytest.mark.parametrize("workers", [0, 2])
def test_members_of_ours_are_decompressed_whole_however_little_is_read_at_once(workers: int) -> None:
    parts = [b"first" * 100, b"", b"third" * 50_000]
    file: Any = _InSmallReads(b"".join(map(gzip_member, parts)))
    pieces = list(decompressed(file, limit=1 << 20, name="it", workers=workers, own=True))
    assert pieces == parts
    file = _InSmallReads(b"".join(map(gzip_member, parts)))
    assert b"".join(decompressed(file, limit=1 << 20, name="it", workers=workers)) == b"".join(parts)


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
