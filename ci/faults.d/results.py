"""Results: a row for each command and fault, kept in a file to which later runs add."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

HEADER = (
    "command",
    "fault",
    "how",
    "options",
    "relbuild",
    "calls",
    "injected",
    "not reached",
    "states",
    "losses",
    "seconds",
    "exit statuses",
    "numbers",
)
"""`relbuild`: which code, as Git names the folder `pipeline`. `states`: how many were left that no fault
of the same run had left before. `numbers`: of the calls that a fault happened to."""


@dataclass(slots=True)
class Row:
    """Of one command and fault, with one code."""

    command: str
    fault: str
    how: str
    options: str
    relbuild: str
    calls: int = 0
    unreached: int = 0
    states: int = 0
    losses: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    numbers: set[int] = field(default_factory=set)

    @property
    def key(self) -> tuple[str, ...]:
        """Rows with the same add up."""
        return self.command, self.fault, self.how, self.options, self.relbuild

    def add(self, number: int, status: int, *, reached: bool, new: bool, lost: bool) -> None:
        """A fault that happened, or was not reached."""
        self.numbers.add(number)
        self.statuses[status] += 1
        self.unreached += not reached
        self.states += new
        self.losses += lost

    def line(self) -> str:
        """As it stands in the file."""
        statuses = " ".join(f"{status}:{count}" for status, count in sorted(self.statuses.items()))
        injected = len(self.numbers)
        words = (*self.key, self.calls, injected, self.unreached, self.states, self.losses, round(self.seconds))
        return "\t".join(str(word) for word in (*words, statuses, _ranges(self.numbers)))


def read(path: Path) -> dict[tuple[str, ...], Row]:
    """The rows of a file; none if it is not there."""
    rows = {}
    for line in path.read_text().splitlines()[1:] if path.exists() else ():
        found = dict(zip(HEADER, line.split("\t"), strict=True))
        command, fault, how, options, relbuild = (found[name] for name in HEADER[:5])
        row = Row(command, fault, how, options, relbuild)
        row.calls, row.unreached, row.states, row.losses, seconds = (
            int(found[name]) for name in ("calls", "not reached", "states", "losses", "seconds")
        )
        row.seconds = float(seconds)
        row.statuses.update(
            {int(one): int(two) for one, _, two in (each.partition(":") for each in found["exit statuses"].split())}
        )
        row.numbers.update(_numbers(found["numbers"]))
        rows[row.key] = row
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace the file."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text("\n".join(("\t".join(HEADER), *(row.line() for row in rows), "")))
    draft.replace(path)


def _ranges(numbers: set[int]) -> str:
    """`1-3 7` for 1, 2, 3 and 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _numbers(text: str) -> Iterable[int]:
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        yield from range(int(first), int(last or first) + 1)
