"""What was fuzzed, a line for each target: executions and seconds of all runs of the same reader, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A target and what its runs came to. `covered`: branches that its inputs reached in all, as the last run counted
    them; `reader`: the digest of the code that was run (`tests.fuzz.reader`)."""

    target: str
    executions: int
    covered: int
    seconds: int
    finds: int
    runs: int
    reader: str

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        return tuple(str(value) for value in astuple(self))


_HEAD = tuple(one.name for one in fields(Row))


def read_rows(path: Path) -> Mapping[str, Row]:
    """The rows of a file by target; none if there is no file, or if it is of another form."""
    lines = [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []
    if not lines or tuple(lines[0]) != _HEAD:
        return {}
    rows = {}
    for target, *counts, reader in lines[1:]:
        executions, covered, seconds, finds, runs = map(int, counts)
        rows[target] = Row(target, executions, covered, seconds, finds, runs, reader)
    return rows


def added(rows: Mapping[str, Row], new: Row) -> Mapping[str, Row]:
    """`rows` with a run more: added to that of the same target if the same code was run, else in its place."""
    known = rows.get(new.target)
    if known is not None and known.reader == new.reader:
        new = replace(
            new,
            executions=known.executions + new.executions,
            seconds=known.seconds + new.seconds,
            finds=known.finds + new.finds,
            runs=known.runs + new.runs,
        )
    return {**rows, new.target: new}


def write_rows(path: Path, rows: Mapping[str, Row], order: Sequence[str]) -> None:
    """Write the file, its targets in their order."""
    kept = [rows[name].cells() for name in order if name in rows]
    path.write_text("".join("\t".join(cells) + "\n" for cells in (_HEAD, *kept)))
