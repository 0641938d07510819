"""Texts in XML and JSON, whatever is in them."""

from __future__ import annotations

import json
from html import escape

from pipeline.escaping import strip_invisible


def attributes(**values: object) -> str:
    """` a="1" b="x"`."""
    return "".join(f' {key}="{_value(value)}"' for key, value in values.items())


def text(value: object) -> str:
    """A value between tags."""
    return escape(strip_invisible(str(value)), quote=False)


def json_bytes(value: object) -> bytes:
    """Return JSON with sorted keys, without white space.

    Half of a surrogate pair, as a log has that is not UTF-8, is written as JSON's own escape.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def _value(value: object) -> str:
    # As it stands, white space in an attribute becomes spaces (Extensible Markup Language 1.0, 3.3.3).
    return escape(strip_invisible(str(value))).replace("\n", "&#10;").replace("\t", "&#9;")
