"""Marks in a tar: equal tags are equal bytes of equal length, in the same place, under the same key."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.layers import tar_marks
from pipeline.layers.tar_marks import MarkedTar, TarKey, TarMark, TarMarker


@pytest.fixture(params=["gmac", "sha256"])
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TarKey:
    """A key, where AES-GCM is there and where it is not."""
    if request.param == "sha256":
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    return TarKey()


def _marked(key: TarKey, *segments: bytes) -> list[TarMark]:
    marker = TarMarker(key)
    made = []
    for segment in segments:
        for byte in range(0, len(segment), 13):
            marker.update(segment[byte : byte + 13])
        made.append(marker.mark())
    return made


def _compared(key: TarKey, marks: Sequence[TarMark], data: bytes, step: int) -> tuple[list[tuple[int, bool]], bool]:
    tar = MarkedTar(key, marks)
    return [one for at in range(0, len(data), step) for one in tar.update(data[at : at + step])], tar.ended


@pytest.mark.parametrize("step", [1, 7, 64, 200])
def test_the_end_of_each_segment_is_compared_wherever_the_pieces_are_cut(key: TarKey, step: int) -> None:
    data = bytes(range(200))
    marks = _marked(key, data[:10], b"", data[10:64], data[64:])
    assert [mark.size for mark in marks] == [10, 10, 64, 200]
    assert _compared(key, marks, data, step) == ([(number, True) for number in range(4)], True)
    for at, segment in ((3, 0), (10, 2), (63, 2), (64, 3), (199, 3)):
        wrong = bytearray(data)
        wrong[at] ^= 0x80
        found, ended = _compared(key, marks, bytes(wrong), step)
        assert found == [(number, number != segment) for number in range(4)] and ended


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.binary(max_size=120), st.integers(1, 50))
def test_other_bytes_never_pass(segments: list[bytes], other: bytes, step: int) -> None:
    key, whole = TarKey(), b"".join(segments)
    marks = _marked(key, *segments)
    for data in (whole, other, whole[:-1], whole + b"\0"):
        found, ended = _compared(key, marks, data, step)
        passed = ended and all(same for _, same in found)
        assert passed == (data == whole) or not data, "an empty tar reaches no mark"


def test_a_tag_is_of_the_key_the_place_and_the_length(key: TarKey) -> None:
    other = TarKey()
    other._kind = key._kind
    tags = [
        mark.tag
        for mark in (
            *_marked(key, b"same", b"same", b"", b"", bytes(16), bytes(32)),
            *_marked(other, b"same", b"same", b"", b"", bytes(16), bytes(32)),
        )
    ]
    assert len(set(tags)) == len(tags) and all(len(tag) >= 16 for tag in tags)
    assert _marked(key, b"same") == _marked(key, b"same")
    (one,), (padded,) = _marked(key, b"same"), _marked(key, b"same\0")
    assert one.tag != padded.tag


def test_segments_in_another_order_do_not_pass(key: TarKey) -> None:
    first, second = os.urandom(100), os.urandom(100)
    found, _ = _compared(key, _marked(key, first, second), second + first, 64)
    assert found == [(0, False), (1, False)]


def test_marks_that_are_not_reached_or_passed_over_are_no_end(key: TarKey) -> None:
    marks = _marked(key, b"abc", b"de")
    assert _compared(key, marks, b"abcde", 9) == ([(0, True), (1, True)], True)
    assert _compared(key, marks, b"abcd", 9) == ([(0, True)], False)
    assert _compared(key, marks, b"abcdef", 9) == ([(0, True), (1, True)], False)
    assert _compared(key, marks, b"", 9) == ([], False)


def test_the_tag_is_gmac_where_the_library_has_it() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = TarKey()
    (mark,) = _marked(key, b"authenticated")
    assert mark.tag == AESGCM(key._key).encrypt(bytes(12), b"", b"authenticated"), "SP 800-38D"


def test_keys_are_drawn_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TarKey()._key != TarKey()._key
    asked: list[int] = []
    monkeypatch.setattr(tar_marks.os, "urandom", lambda size: (asked.append(size), b"k" * size)[1])
    TarKey()
    assert asked == [16]
