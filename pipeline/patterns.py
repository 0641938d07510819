"""Regular-expression search with bounded work: in-process if cheap, else in a child.

Patterns are from recipes and rules, texts from images and servers. Python's expressions backtrack: `(a+)+$` doubles its
time with each character, and even `a+b` takes the square of a text's length. A search that may take long is done by the
limited child (`pipeline.limited`), others in this process.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline import limited

_MODULE = "pipeline.patterns"
UNLIMITED_STEPS = 4_000_000
"""Steps of a search that is done in this process: a tenth of a second."""

_REPEATS = re.compile(r"[*+?{]")
_GROUPS = re.compile(r"\)[*+?{]|\\[1-9]|\(\?P=|\(\?\(")
_NESTED = 64
"""Number of repetitions that stands for too many for a search in this process."""


_PLAIN = re.compile(
    r"""
    (?P<flags> \(\?[aimsu]+\) )?
    (?P<begin> \^ )?
    (?P<middle> (?:
        (?: [^\\^$.|?*+()\[\]{}] | \. | \\[dDsSwWnrt] | \\[!-/:-@\[-`{-~] | \[\^?(?:[^\]\\^]|\\.)(?:[^\]\\]|\\.)*\] )
        (?: (?: [*+?] | \{[0-9]{0,3}(?:,[0-9]{0,3})?\} ) [?+]? )?
        | \|
    )* )
    (?P<end> \$ )?
    """,
    re.VERBOSE,
)
"""Patterns without groups, whose parts match alike wherever they stand."""


class Undecided(Exception):
    """A search met a limit; the text says which."""


def search_pattern(pattern: str, text: str) -> tuple[int, int] | None:
    """Find the first match of the pattern in the text: its beginning and end, None if none.

    `^` and `$` are ends of lines. Raises Undecided, and re.error for what is no pattern.
    """
    if (len(text) + 1) ** (_repetitions(pattern) + 1) <= UNLIMITED_STEPS:
        return _find(pattern, text)
    re.compile(pattern)
    try:
        told = limited.call_limited(_MODULE, pattern, body=text.encode(errors="surrogatepass"))
    except limited.LimitMet as stopped:
        raise Undecided(f"the pattern '{pattern[:200]}' {stopped}") from None
    return (int(told[0]), int(told[1])) if isinstance(told, list) else None


def is_in_any_text(pattern: str) -> bool:
    """Return True if a pattern is known to be found in every text: `.*`, `x*`, `^`, `a|`.

    Only such are looked at as have no group, no look-around and no anchor but one of `^` at the beginning and `$` at
    the end: where they match the empty text, they match it everywhere, and at the beginning or end of every text. False
    for all others, and for what is no pattern.
    """
    parts = _PLAIN.fullmatch(pattern)
    if parts is None:
        return False
    if parts["begin"] and parts["end"]:
        return parts["middle"] in (".*", ".*?")  # Any line is one, the last and the only one too.
    try:
        return re.match(f"{parts['flags'] or ''}{parts['middle']}", "") is not None
    except (re.error, OverflowError):
        return False


def serve(request: object, body: bytes, _: limited.AskParent) -> object:
    """Search `body` for the pattern `request`; called in the limited child."""
    return _find(str(request), body.decode(errors="surrogatepass"))


def _find(pattern: str, text: str) -> tuple[int, int] | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found.span() if found else None


@lru_cache(maxsize=256)
def _repetitions(pattern: str) -> int:
    """Count the parts of the pattern that may repeat: the exponent of the time that it takes.

    Groups that repeat, and references to groups, count as more than any text allows.
    """
    return _NESTED if _GROUPS.search(pattern) else min(len(_REPEATS.findall(pattern)), _NESTED)
