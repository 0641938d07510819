"""Escape or strip control, invisible and bidirectional characters in foreign text.

Names, log lines, changelogs and messages come from packages, mirrors, images and recipes, and may have terminal escape
sequences, bidirectional marks, line separators and lone surrogates. Text for people goes through `escape_invisible`,
which writes such characters as escapes, or `strip_invisible`, which removes them where a reader would not know an
escape.
"""

from __future__ import annotations

import json
import re

_HIDDEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that are invisible, or that reorder or hide other text.
They are marks and overrides of the reading direction (UAX #9), zero-width characters, separators of lines and
paragraphs, fillers, tags (Unicode's Default_Ignorable_Code_Point, without the variation selectors of emoji)."""
_UNSEEN = re.compile(f"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]|[{_HIDDEN}]")
"""Hidden characters, and those that XML cannot hold or HTML does not show.
XML: Extensible Markup Language 1.0, Char."""
_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\-_])")
"""Escape sequences that colour a terminal or set its title (ECMA-48)."""


def escape_invisible(text: str, *, lines: bool = True) -> str:
    """Escape control and invisible characters of a text, for a terminal and for XML.

    They are written as escapes such as `\\x1b` or `\\u202e`. Tabs stay, and with `lines` line feeds; without, the text
    is one line.
    """
    if text.isascii() and text.isprintable():
        return text
    seen = _UNSEEN.sub(_written, text.replace("\r\n", "\n"))
    return seen if lines else seen.replace("\n", "\\n")


def escape_message(text: str) -> str:
    """Escape a message, and prefix its lines after the first.

    It may quote foreign text of several lines, which must not look like lines of relbuild's own or commands to a CI
    system.
    """
    return escape_invisible(text.rstrip("\n")).replace("\n", "\n  | ")


def strip_invisible(text: str) -> str:
    """Remove terminal sequences, control and invisible characters, for pages and XML.

    Lone surrogates and bidirectional marks are among them. Tab and line feed stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub("", _SEQUENCE.sub("", text).replace("\r\n", "\n"))


def json_text(value: object, *, unicode: bool = True) -> str:
    """Return a value as indented JSON with sorted keys.

    Only control and invisible characters are written as JSON escapes; without `unicode`, all that is not ASCII.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=not unicode)
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _written(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
