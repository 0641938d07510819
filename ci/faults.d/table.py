"""Writes the results in docs/reliability/*.tsv into docs/reliability.md, between its two marks.

Usage: python ci/faults.d/table.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"


def tables() -> str:
    """All of them, in Markdown."""
    return "\n".join((*_faults(), "", *_torture(), "", *_fuzz(), ""))


def document(text: str) -> str:
    """The document with these tables."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + tables() + END + rest.partition(END)[2]


def _rows(name: str) -> list[dict[str, str]]:
    path = DOCS / "reliability" / f"{name}.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def _faults() -> Iterator[str]:
    yield "| command | fault | how | calls | injected | losses | repeat with `ci/faults --command …` |"
    yield "|---|---|---|---|---|---|---|"
    for row in _rows("faults"):
        words = f"--fault {row['fault']}{' --forever' if row['how'] != 'once' else ''} {row['options']}".rstrip()
        cells = (row["command"], row["fault"], row["how"], row["calls"], row["runs"], row["losses"], f"`{words}`")
        yield f"| {' | '.join(cells)} |"


def _torture() -> Iterator[str]:
    yield "| scenario | rounds | losses | what was done | repeat |"
    yield "|---|---|---|---|---|"
    for row in _rows("torture"):
        words = f"`ci/torture {row['scenario']} --rounds {row['rounds']} --seed {row['seed']}`"
        yield f"| {row['scenario']} | {row['rounds']} | {row['losses']} | {row['what was done']} | {words} |"


def _fuzz() -> Iterator[str]:
    yield "| reader | executions | seconds | finds | repeat |"
    yield "|---|---|---|---|---|"
    for row in _rows("fuzz"):
        words = f"`ci/fuzz {row['target']} --runs {row['executions']} --minutes 600`"
        yield f"| {row['target']} | {row['executions']} | {row['seconds']} | {row['finds']} | {words} |"


if __name__ == "__main__":
    page = DOCS / "reliability.md"
    found = page.read_text()
    if "--check" in sys.argv:
        sys.exit(found != document(found))
    page.write_text(document(found))
