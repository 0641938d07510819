"""Escape untrusted texts for XML and HTML, and encode JSON with unpaired surrogates."""

from __future__ import annotations

import json
from html import escape

from pipeline.escaping import strip_invisible


def attributes(**values: object) -> str:
    """Return escaped attributes: ` a="1" b="x"`."""
    return "".join(f' {key}="{_value(value)}"' for key, value in values.items())


def text(value: object) -> str:
    """Escape a value for the text between tags."""
    return escape(strip_invisible(str(value)), quote=False)


def json_bytes(value: object) -> bytes:
    """Encode JSON with sorted keys, without white space.

    Unpaired surrogates, as from a log that is not UTF-8, become JSON escapes.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def _value(value: object) -> str:
    # Unescaped white space in an attribute is normalised to spaces (Extensible Markup Language 1.0, 3.3.3).
    return escape(strip_invisible(str(value))).replace("\n", "&#10;").replace("\t", "&#9;")
