"""Figures and times as people read them; texts that are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.escaping import strip_invisible
from pipeline.site import text_format
from tests.support.nightly_examples import HOSTILE


@pytest.mark.parametrize(
    ("size", "decimal", "binary"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1.0 kB", "1000 B"),
        (1_048_575, "1.0 MB", "1.0 MiB"),
        (999_960, "1.0 MB", "976.5 KiB"),
        (13 << 20, "13.6 MB", "13.0 MiB"),
        (5 << 50, "5629.5 TB", "5120.0 TiB"),
        (None, "–", "–"),
    ],
)
def test_sizes(size: int | None, decimal: str, binary: str) -> None:
    assert (text_format.size_text(size), text_format.memory_text(size)) == (decimal, binary)


@pytest.mark.parametrize(
    ("span", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_949, "59.9 s"), (59_960, "1 min 0 s"), (3_599_600, "1 h 0 min"),
     (187_000, "3 min 7 s"), (7_500_000, "2 h 5 min"), (None, "–")],
)  # fmt: skip
def test_spans(span: int | None, text: str) -> None:
    assert text_format.span_text(span) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "fix", "1 fix"), (2, "fix", "2 fixes"), (0, "day", "0 days"), (3, "repository", "3 repositories")],
)
def test_counts(number: int, noun: str, text: str) -> None:
    assert text_format.count_text(number, noun) == text


def test_times() -> None:
    at = 1_764_041_400_123
    assert text_format.iso_text(at) == "2025-11-25T03:30:00Z"
    assert text_format.stamp_text(at) == "2025-11-25T033000Z"
    assert text_format.weekday_text(at) == "Tuesday, 25 November 2025"
    assert text_format.minute_text(at) == "25 Nov 2025, 03:30"
    assert text_format.days_until("2025-12-25", at) == 30
    assert text_format.days_until("2025-11-24", at) == -1
    assert text_format.days_until("soon", at) is None
    assert text_format.days_since(at - 3 * text_format.MILLISECONDS_PER_DAY - 1, at) == 3
    assert text_format.days_since(at + text_format.MILLISECONDS_PER_DAY, at) == 0


def test_lists() -> None:
    assert [text_format.join_names(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_terminals_colours_and_marks_that_turn_text_are_not_shown() -> None:
    shown = strip_invisible(HOSTILE)
    assert "red" in shown and "[31m" not in shown and "gnp.exe" in shown
    assert strip_invisible("\x1b]0;title\x07text\x1b[1;31mred\x1b[K\ttab\nline\r\nend") == "textred\ttab\nline\nend"


@given(st.text(st.characters()))
def test_a_shown_text_is_one_that_xml_holds(text: str) -> None:
    shown = strip_invisible(text)
    shown.encode()
    assert strip_invisible(shown) == shown or "\x1b" in text
    assert all(char in "\t\n" or ord(char) >= 0x20 for char in shown)
    assert not set(shown) & set(
        map(chr, [0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFFFE])
    )
