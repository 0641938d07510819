"""Members of gzip as relbuild writes them: each is read as zlib reads it, or as what this store compressed."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import zlib
from typing import Any

import deflate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compression import PIECE, READ_SIZE
from pipeline.errors import VerificationError
from pipeline.gzip_members import decompress_own_gzip, gzip_member
from pipeline.streams import decompressed
from tests.support.crafted_deflate import by_zlib, fixed_block, member_of, reserved_codes, stored_block
from tests.support.examples import examples
from tests.support.hidden_members import HEADER, TRAILER, hiding, with_body


def read(data: bytes, *, workers: int = 0) -> bytes:
    return b"".join(decompressed(io.BytesIO(data), limit=1 << 30, name="it", workers=workers))


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
