"""Patterns of checks against what images say: what takes for ever is stopped, and judged as wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import limited
from pipeline.limited import child_process
from pipeline.model import value_comparison
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    mismatch_is_final,
    record_text,
)
from pipeline.model.value_rules import Rule
from pipeline.patterns import Undecided, is_in_any_text, search_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "where"),
    [
        ("b", "abc", (1, 2)),
        ("^b$", "a\nb\nc", (2, 3)),
        ("x+y", "x" * 5000, None),
        (r"(\d+)-\1", "a" * 3000 + "17-17", (3000, 3005)),
        ("(ready|done)+", "is ready", (3, 8)),
        ("é+", "\udc80é" * 2000, (1, 2)),
        ("a", "", None),
    ],
)
def test_a_pattern_is_found_here_or_in_the_child_alike(
    pattern: str, text: str, where: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search_pattern(pattern, text) == where
    monkeypatch.setattr("pipeline.patterns.UNLIMITED_STEPS", 0)
    assert search_pattern(pattern, text) == where


def test_short_texts_and_plain_patterns_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "call_limited", lambda *_, **__: pytest.fail("a child was asked"))
    assert search_pattern("ready for connections", "x" * 100_000 + "ready for connections") == (100_000, 100_021)
    assert search_pattern(r"^version [0-9]\.", "version 8.") == (0, 10)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("pattern", "text"), [("(a|a)*c", "a" * 40 + "b"), (r"\d+ms", "1" * 1_000_000)], ids=["nested", "long"]
)
def test_a_search_that_never_ends_is_stopped(pattern: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 0)  # what is left of the child's first second
    with pytest.raises(Undecided, match="processor time"):
        search_pattern(pattern, text)


def test_what_cannot_be_decided_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(pattern: str, text: str) -> None:
        raise Undecided(f"the pattern '{pattern}' takes too long")

    monkeypatch.setattr(value_comparison, "search_pattern", undecided)
    for rule in (Rule(lacks="a"), Rule(matches="a")):
        assert "cannot be matched: the pattern 'a' takes too long" in mismatch((rule,), "a", "stdout")
        assert mismatch((rule,), record_text((rule,), RecordedText.of("a" * 100_000)).text, "stdout")
    assert mismatch_is_final((Rule(lacks="a"),), "a")


def test_what_is_no_pattern_is_told_here() -> None:
    with pytest.raises(re.error):
        search_pattern("(" * 3, "x" * 5_000_000)


@pytest.mark.parametrize(
    "pattern",
    [".*", "x*", "(?s).*", "(?si).*", "^", "$", "^.*", ".*$", "^.*$", "a|", "|a", "a?", "[^x]*", r"[\]]?", r"\s*",
     r"\$?", "x{0,3}", "x{,3}", "x*?", "x*+", "a|b*", "^a|b?", "a|b*$", ".*.*"],
)  # fmt: skip
def test_a_pattern_that_any_text_has_is_known(pattern: str) -> None:
    assert is_in_any_text(pattern)
    assert all(search_pattern(pattern, text) for text in ("", "a", "x", "\n", "a\n", "b\nx\n\n", " y"))


@pytest.mark.parametrize(
    "pattern",
    [".", ".+", "x", "^$", "^x*$", r"^\s*$", r"\Ax*\Z", r"\Z", r"\b", r"\B", "x+", "x{1,}", r"\S", "(?!x)", "(?=x)|",
     "(?<!x)", r"()\1", "(", "[", "*", "a||*", "x**", "^x|y$", "^*", "$^", "x*$y", "x{3,1}"],
)  # fmt: skip
def test_what_some_text_lacks_is_not(pattern: str) -> None:
    assert not is_in_any_text(pattern)


@pytest.mark.parametrize("part", ["x{1}?", "x{1,2}", "[a", "[]", "[^^]", "[\\\\", "a?", "a|", r"\s"])
def test_a_long_pattern_is_looked_at_in_one_pass(part: str) -> None:
    """Each part can be read in one way: a second one would double the time with every part."""
    assert not is_in_any_text(part * 3000 + "(")


@given(st.text("^$.|?*+(){}[]\\\\,01abxsSdDbBAZ!=<:i\n", max_size=9), st.text("abx01 \n.$-", max_size=6))
def test_what_is_said_to_be_in_any_text_is(pattern: str, text: str) -> None:
    if is_in_any_text(pattern):
        assert re.search(pattern, text, re.MULTILINE), (pattern, text)
