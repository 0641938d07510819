"""Data class for a rule that a value must meet: equality, patterns, bounds, JSON path."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one value, which is a text or a number written as one.

    All that is given must hold.

    `equals` compares without white space at the ends; `matches` and `lacks` are regular expressions that are
    searched for; `least` and `most` bound a number, both included. With `at` (`pipeline.model.jsonpath`) the
    value is first looked up in the text, which is JSON then.
    """

    equals: str | None = None
    matches: str | None = None
    lacks: str | None = None
    least: float | None = None
    most: float | None = None
    at: str = ""


Rules = tuple[Rule, ...]
