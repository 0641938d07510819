"""Writes the results in docs/reliability/*.tsv into docs/reliability.md, between its two marks.

Usage: python ci/faults.d/table.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_COUNTED = re.compile(r"(\d+) ([a-z][a-z ]*?)(?= during|,|$)")
"""A number and what was counted, in a scenario's words."""

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
    names = ("command", "fault", "how", "calls", "injected", "states", "losses", "seconds", "relbuild")
    yield f"| {' | '.join(names)} | repeat with `ci/faults --command …` |"
    yield "|---" * (len(names) + 1) + "|"
    for row in _rows("faults"):
        words = f"--fault {row['fault']}{' --forever' if row['how'] != 'once' else ''} {row['options']}".rstrip()
        yield f"| {' | '.join(row[name] for name in names)} | `{words}` |"


def _torture() -> Iterator[str]:
    """Runs of a scenario with different seeds are one row."""
    yield "| scenario | rounds | losses | seconds | relbuild | what was done | repeat |"
    yield "|---|---|---|---|---|---|---|"
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in _rows("torture"):
        found.setdefault((row["scenario"], row["rounds"], row["relbuild"]), []).append(row)
    for (name, each, relbuild), rows in found.items():
        rounds, losses, seconds = (sum(int(row[key]) for row in rows) for key in ("rounds", "losses", "seconds"))
        done: Counter[str] = Counter()
        for count, what in (one for row in rows for one in _COUNTED.findall(row["what was done"])):
            done[what] += int(count)
        told = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
        seeds = ", ".join(row["seed"] for row in rows)
        words = f"`ci/torture {name} --rounds {each} --seed …`: {seeds}"
        yield f"| {name} | {rounds} | {losses} | {seconds} | {relbuild} | {told} | {words} |"


def _fuzz() -> Iterator[str]:
    yield "| reader | executions | runs | seconds | branches | finds | code | go on with |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in _rows("fuzz"):
        cells = (*(row[key] for key in ("target", "executions", "runs", "seconds", "covered", "finds", "reader")),)
        yield f"| {' | '.join(cells)} | `ci/fuzz {row['target']} --runs 1000000 --minutes 60` |"


if __name__ == "__main__":
    page = DOCS / "reliability.md"
    found = page.read_text()
    if "--check" in sys.argv:
        sys.exit(found != document(found))
    page.write_text(document(found))
