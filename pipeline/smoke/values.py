"""Whether a value is what rules say, and what is wrong with it if not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.model.jsonpath import look_up
from pipeline.model.probes import Rule

SHOWN = 2000
"""Characters of an answer that a report shows."""


def differs(rules: Sequence[Rule], text: str, what: str, *, tell: bool = False) -> str:
    """What is wrong with `text`, which people call `what`; empty if nothing is. `tell`: say what it is instead."""
    for rule in rules:
        wrong = _wrong(rule, text, what, tell=tell)
        if wrong:
            return wrong
    return ""


def final(rules: Sequence[Rule], text: str) -> bool:
    """Is a text that still grows wrong for good: does it hold already what it must not hold?"""
    return any(rule.lacks is not None and not rule.at and found(rule.lacks, text) for rule in rules)


def found(pattern: str, text: str) -> bool:
    """Is the pattern somewhere in the text? `^` and `$` are ends of lines."""
    return re.search(pattern, text, re.MULTILINE) is not None


def shown(data: bytes | str, limit: int = SHOWN) -> str:
    """An answer for people."""
    text = (data.decode(errors="replace") if isinstance(data, bytes) else data).strip()
    return text if len(text) <= limit else f"{text[:limit]} …"


def _wrong(rule: Rule, text: str, what: str, *, tell: bool) -> str:
    if rule.at:
        what = f"{what} at {rule.at}"
        try:
            text = look_up(text, rule.at)
        except ValueError as error:
            return f"{what}: it is no JSON: {error}"
        except (LookupError, RecursionError) as error:
            return f"{what}: {error.args[0] if error.args else error}"
    # What is looked up, or short, is told here; longer answers are shown once, by who asked.
    but = f" but '{shown(text, 200)}'" if rule.at or tell else ""
    if rule.equals is not None and text.strip() != rule.equals.strip():
        return f"{what} is not '{rule.equals}'{but}"
    if rule.matches is not None and not found(rule.matches, text):
        return f"{what} does not match '{rule.matches}'{but}"
    if rule.lacks is not None and found(rule.lacks, text):
        line = next((line for line in text.splitlines() if found(rule.lacks, line)), text)
        return f"{what} has what it must not have, '{rule.lacks}': {shown(line, 200)}"
    if rule.least is not None or rule.most is not None:
        return _outside(rule, text.strip(), what)
    return ""


def _outside(rule: Rule, text: str, what: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return f"{what} is no number but '{shown(text, 80)}'"
    if rule.least is not None and not number >= rule.least:
        return f"{what} is {text}, less than {rule.least:g}"
    if rule.most is not None and not number <= rule.most:
        return f"{what} is {text}, more than {rule.most:g}"
    return ""
