"""Ways out of errors in YAML's syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CLOSING = {"[": "]", "{": "}"}
"""Brackets of flow collections."""

_QUOTE_TEMPLATE = "a value that begins with '{{' needs double quotes"

_TEMPLATE_UNQUOTED = re.compile(r"(?:^|[:-])\s*\{\{")
"""A value that begins with a template, and not in quotes."""


def bracket_hint(lines: Sequence[str], line: int, column: int) -> str:
    """Return how to close the bracket at a place, counted from 0; "" if there is none.

    That is where the list or mapping begins in which the parser found something else.
    """
    text = lines[line] if line < len(lines) else ""
    opened = text[column : column + 1]
    if opened not in _CLOSING:
        return ""
    if "{{" in text[max(0, column - 1) : column + 2]:
        return _QUOTE_TEMPLATE
    return f"close the '{opened}' of line {line + 1} with '{_CLOSING[opened]}', or put a ',' before what follows"


def syntax_hint(said: str, line: str) -> str:
    """Return the way out of a syntax error that the parser describes as `said`, found in `line`."""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in said:
        return "indent with spaces, never with tabs"
    if "mapping values are not allowed" in said:
        return "put text that contains ': ' in quotes; indent all keys of a mapping equally"
    if "cannot start any token" in said:
        return "text that begins with '@', '`' or '%' needs quotes"
    if _TEMPLATE_UNQUOTED.search(line):
        return _QUOTE_TEMPLATE
    return "check the quotes, brackets and indentation here and on the lines above"
