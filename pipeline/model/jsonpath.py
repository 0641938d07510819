"""Lookup of one value in a JSON text by its path, in a subset of JSONPath (RFC 9535).

`$` is the document, `.name` or `['any name']` a member, `[2]` an item, `[-1]` the last one, `.length()` the number
of items or members. The leading `$` may be left out: `status`, `nodes[0].name`.
"""

from __future__ import annotations

import json
import re

_STEP = re.compile(
    r"""\.?(?P<name>[A-Za-z_][\w-]*)(?P<call>\(\))?|\[(?P<index>-?\d{1,9})\]|\[(?P<quote>['"])(?P<key>[^'"\]]*)(?P=quote)\]"""
)

LENGTH = object()
"""The step that counts."""


def parse_path(text: str) -> tuple[object, ...]:
    """Parse a path into its steps: members (str), items (int) and `LENGTH`. Raises ValueError."""
    rest = text.removeprefix("$")
    steps: list[object] = []
    position = 0
    while position < len(rest):
        found = _STEP.match(rest, position)
        bare = position == 0 and not text.startswith("$")
        named = found is not None and found["name"] is not None
        if found is None or (named and rest[position] != "." and not bare):
            raise ValueError(f"'{rest[position:][:40]}' is not a valid step of a JSON path")
        if found["call"]:
            if found["name"] != "length":
                raise ValueError(f"'{found['name']}()' is not a valid step of a JSON path")
            steps.append(LENGTH)
        elif named:
            steps.append(found["name"])
        else:
            steps.append(int(found["index"]) if found["index"] is not None else found["key"])
        position = found.end()
    return tuple(steps)


def look_up(document: str, path: str) -> str:
    """Return the value at `path` as text: a string as it is, everything else as JSON.

    Raises ValueError, LookupError.
    """
    value = json.loads(document)
    for step in parse_path(path):
        if step is LENGTH:
            if not isinstance(value, list | dict | str):
                raise LookupError("the value has no length")
            value = len(value)
        elif isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                raise LookupError(f"there is no item {step}")
            value = value[step]
        else:
            if not isinstance(value, dict) or step not in value:
                raise LookupError(f"there is no member '{step}'")
            value = value[step]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
