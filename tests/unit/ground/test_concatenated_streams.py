"""Compressed streams that follow each other are read as by their libraries, in time that is linear in their size."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import gzip_members
from pipeline.errors import VerificationError
from pipeline.gzip_members import MEMBER_CONTENT, gzip_member
from pipeline.input_slices import FIRST_SLICE, InputSlices
from pipeline.streams import decompressed
from tests.support.crafted_deflate import by_zlib, member_of
from tests.support.examples import examples
from tests.support.hidden_members import HEADER, TRAILER, hiding

EMPTY = gzip.compress(b"", mtime=0)


def lying(size: int) -> bytes:
    """An empty member that claims to have `size` bytes, and empty members that fill them."""
    nothing = gzip_member(b"")[HEADER:-TRAILER]
    first = member_of(nothing, b"", length=size)
    return first + EMPTY * ((size - len(first)) // len(EMPTY))


@functools.cache
def noise(size: int) -> bytes:
    """Bytes that compress to as many, the same each time."""
    return random.Random(size).randbytes(size)


def read(data: bytes, *, workers: int = 0) -> bytes | None:
    """What is decompressed; None if it is refused."""
    try:
        return b"".join(decompressed(io.BytesIO(data), limit=64 << 20, name="it", workers=workers))
    except VerificationError as error:
        assert error.code == "stream-damaged"
        return None


class Counted:
    """A decompressor that counts what it is given, and holds it to its bound."""

    def __init__(self, stream: Any, given: list[int]) -> None:
        self._stream, self._given, self._taken = stream, given, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def decompress(self, data: memoryview, most: int) -> bytes:
        self._given.append(len(data))
        if most == MEMBER_CONTENT:  # Else it is a member whose length is known, and that is read once as a whole.
            assert len(data) <= FIRST_SLICE + self._taken, "what is behind its end would be copied"
        piece: bytes = self._stream.decompress(data, most)
        self._taken += len(data) - len(getattr(self._stream, "unconsumed_tail", b""))
        return piece


STREAMS = {
    "gzip": EMPTY * 10_000,
    "gzip, lengths that lie": 4 * lying(60_000),
    "gzip, a length that lies behind sound ones": 5 * gzip_member(b"") + 2 * lying(120_000),
    "gzip, a length that lies in each": lying(60) * 4000,
    "gzip, a large one between": EMPTY * 4000 + gzip.compress(noise(3 << 20), 1) + EMPTY * 4000,
    "xz": lzma.compress(b"") * 6000,
    "bzip2": bz2.compress(b"") * 12_000,
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", STREAMS)
def test_what_is_behind_a_streams_end_is_not_copied_for_each(
    what: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`limit` does not end streams of which nothing comes."""
    given: list[int] = []
    made = 0

    def counted(make: Callable[..., Any]) -> Callable[..., Counted]:
        def begin(*arguments: Any, **named: Any) -> Counted:
            nonlocal made
            made += 1
            return Counted(make(*arguments, **named), given)

        return begin

    fake = SimpleNamespace(**{**vars(zlib), "decompressobj": counted(zlib.decompressobj)})
    monkeypatch.setattr(gzip_members, "zlib", fake)
    monkeypatch.setattr(lzma, "LZMADecompressor", counted(lzma.LZMADecompressor))
    monkeypatch.setattr(bz2, "BZ2Decompressor", counted(bz2.BZ2Decompressor))
    data = STREAMS[what]
    assert read(data, workers=workers) is not None
    assert made > 3000
    assert sum(given) <= made * FIRST_SLICE + 3 * len(data), "each byte is given a few times"


def test_a_slice_is_as_long_as_what_was_taken_before() -> None:
    data = noise((3 << 20) + 5)
    slices = InputSlices(io.BufferedReader(io.BytesIO(data[9:])), data[:9])  # type: ignore[type-var]
    assert slices.begin_stream(2) == data[:2]
    sizes, found = [], b""
    while piece := slices.next():
        sizes.append(len(piece))
        found += piece
    assert found == data
    assert sizes[:3] == [1024, 2048, 4096] and max(sizes) == 1 << 20
    assert not slices.begin_stream() and not slices.next()


def test_what_is_given_back_comes_again_in_small_slices() -> None:
    data = noise(100_000)
    slices = InputSlices(io.BufferedReader(io.BytesIO(data)))  # type: ignore[type-var]
    assert b"".join([slices.next(), slices.next()]) == data[:3072]
    slices.give_back(1000)
    assert slices.next() == data[2072 : 2072 + FIRST_SLICE + 2072]
    slices.give_back(10)
    assert slices.begin_stream(2) == data[5158:5160]
    assert slices.next() == data[5158 : 5158 + FIRST_SLICE]


SOUND = {
    "empty": EMPTY,
    "empty, of relbuild's form": gzip_member(b""),
    "small": gzip.compress(b"small"),
    "small, of relbuild's form": gzip_member(b"small"),
    "with a name": b"\x1f\x8b\x08\x08\0\0\0\0\0\xffname\0" + EMPTY[10:],
    "much of little": gzip.compress(bytes(9 << 20), 9),
    **{f"{size} bytes": gzip.compress(noise(size), 1) for size in range(980, 1030, 7)},
    **{f"{size} bytes, of relbuild's form": gzip_member(noise(size)) for size in (1000, 2020, 4070)},
    "a MiB": gzip.compress(noise(1 << 20), 1),
}
LYING = {
    f"a length of {length}": member_of(gzip_member(b"lying")[HEADER:-TRAILER], b"lying", length=length)
    for length in (29, 40, 1000, 3000, 100_000, 4 << 20)
}
DAMAGED = {
    "a byte": b"\x1f",
    "junk": b"junk" * 500,
    "zeros": bytes(40),
    "half of a member": gzip.compress(noise(2000))[:1000],
    "a member without its last byte": EMPTY[:-1],
    "another checksum": gzip_member(b"sound")[:-8] + bytes(4) + gzip_member(b"sound")[-4:],
    **{f"hidden: {name}": member for name, member in hiding(b"hello " * 100).items()},
}


@settings(max_examples=examples(300))
@given(st.lists(st.sampled_from(sorted(SOUND | LYING)), max_size=12), st.integers(0, 2))
def test_sound_members_in_any_order_are_read_as_by_zlib(names: list[str], workers: int) -> None:
    data = b"".join((SOUND | LYING)[name] for name in names)
    if data:
        content = by_zlib(data)
        assert content is not None and read(data, workers=workers) == content


@settings(max_examples=examples(300))
@given(
    st.lists(st.sampled_from(sorted(SOUND | LYING)), min_size=1, max_size=6),
    st.sampled_from(sorted(DAMAGED)),
    st.lists(st.sampled_from(sorted(SOUND | LYING)), max_size=6),
    st.integers(0, 2),
)
def test_whatever_is_between_members_is_refused_as_by_zlib(
    before: list[str], what: str, behind: list[str], workers: int
) -> None:
    members = SOUND | LYING
    data = b"".join([*map(members.__getitem__, before), DAMAGED[what], *map(members.__getitem__, behind)])
    assert read(data, workers=workers) == by_zlib(data)


@pytest.mark.parametrize("make", [bz2.compress, lzma.compress])
@given(st.lists(st.sampled_from([0, 1, 900, 1000, 1024, 3000, 5000, 50_000]), min_size=1, max_size=6))
def test_xz_and_bzip2_streams_of_any_size_are_read(make: Callable[[bytes], bytes], sizes: list[int]) -> None:
    data = b"".join(make(noise(size)) for size in sizes)
    assert read(data) == b"".join(map(noise, sizes))
    assert read(data[:-1]) is None
    assert read(data + b"junk") is None
