"""Patterns of checks against what images say: what takes for ever is stopped, and judged as wrong."""

from __future__ import annotations

import re

import pytest

from pipeline import limited
from pipeline.limited import parent
from pipeline.model import values
from pipeline.model.value_rules import Rule
from pipeline.model.values import Said, differs, final, recorded
from pipeline.patterns import Undecided, find


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
    assert find(pattern, text) == where
    monkeypatch.setattr("pipeline.patterns.STEPS_HERE", 0)
    assert find(pattern, text) == where


def test_short_texts_and_plain_patterns_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "call", lambda *_, **__: pytest.fail("a child was asked"))
    assert find("ready for connections", "x" * 100_000 + "ready for connections") == (100_000, 100_021)
    assert find(r"^version [0-9]\.", "version 8.") == (0, 10)


@pytest.mark.parametrize(
    ("pattern", "text"), [("(a|a)*c", "a" * 40 + "b"), (r"\d+ms", "1" * 1_000_000)], ids=["nested", "long"]
)
def test_a_search_that_never_ends_is_stopped(pattern: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "PROCESSOR_TIME", 1)
    with pytest.raises(Undecided, match="processor time"):
        find(pattern, text)


def test_what_cannot_be_decided_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(pattern: str, text: str) -> None:
        raise Undecided(f"the pattern '{pattern}' takes too long")

    monkeypatch.setattr(values, "find", undecided)
    for rule in (Rule(lacks="a"), Rule(matches="a")):
        assert "cannot be matched: the pattern 'a' takes too long" in differs((rule,), "a", "stdout")
        assert differs((rule,), recorded((rule,), Said.of("a" * 100_000)).text, "stdout")
    assert final((Rule(lacks="a"),), "a")


def test_what_is_no_pattern_is_told_here() -> None:
    with pytest.raises(re.error):
        find("(" * 3, "x" * 5_000_000)
