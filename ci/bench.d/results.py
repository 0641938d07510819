"""A run's results: as JSON, as a table, and compared with those of an earlier run. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turns import RATIO, BenchFailed, Curve, Figure, Goal, Row

FORMAT = 1
LEAST_CHANGE = 0.05
"""A median that differs by less is no news, however little the turns differed: a machine is not the same for long."""


@dataclass(frozen=True, slots=True)
class SectionResult:
    """What a section found; `failed` says why where it could not be measured."""

    name: str
    title: str
    took: float
    figures: Mapping[str, Mapping[str, Figure]]
    rows: Sequence[Row]
    curves: Sequence[Curve]
    remarks: Sequence[str]
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run found: where, in how many turns, and each section's."""

    machine: Mapping[str, str]
    turns: int
    sections: Sequence[SectionResult]

    def rows(self) -> Iterator[Row]:
        """Yield all lines of the table."""
        for section in self.sections:
            yield from section.rows

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield what was measured, each by a name that another run gives it too."""
        for section in self.sections:
            for what, by_whom in section.figures.items():
                for who, figure in by_whom.items():
                    yield f"{section.name}: {what}: {who}", figure


def write(results: Results, path: Path) -> None:
    """Write results as JSON."""
    document = {"format": FORMAT, **asdict(results)}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read results that `write` wrote. Raises BenchFailed if they cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise BenchFailed(f"{path} has results of format {document['format']}, not {FORMAT}: measure again")
        return Results(
            document["machine"], document["turns"], tuple(_section(section) for section in document["sections"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchFailed(f"{path} holds no results of ci/bench: {type(error).__name__}: {error}") from None


def _section(value: Mapping[str, Any]) -> SectionResult:
    figures = {what: {who: _figure(one) for who, one in by_whom.items()} for what, by_whom in value["figures"].items()}
    rows = tuple(
        Row(row["name"], _figure(row["figure"]), Goal(**row["goal"]) if row["goal"] else None, row["note"])
        for row in value["rows"]
    )
    curves = tuple(
        Curve(one["name"], one["along"], one["unit"], tuple((x, y) for x, y in one["points"]))
        for one in value["curves"]
    )
    return SectionResult(
        value["name"], value["title"], value["took"], figures, rows, curves, tuple(value["remarks"]), value["failed"]
    )


def _figure(value: Mapping[str, Any]) -> Figure:
    return Figure(tuple(value["values"]), value["unit"])


def number(value: float, unit: str) -> str:
    """Write a value as people read it: three significant digits, whole numbers in groups."""
    if unit == "bytes" or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.3f}"


def with_unit(value: float, unit: str) -> str:
    """Write a value with its unit; a ratio has none."""
    return number(value, unit) if unit == RATIO else f"{number(value, unit)} {unit}"


def spread(figure: Figure) -> str:
    """Write the least and the greatest of the turns."""
    return f"{number(figure.least, figure.unit)} … {number(figure.greatest, figure.unit)}"


def verdict(row: Row) -> str:
    """Say whether a row reaches its goal."""
    return {None: "", True: "met", False: "not met"}[row.met]


def table(results: Results) -> list[str]:
    """Write all rows, with goals and verdicts, as lines for a terminal."""
    cells = [("what", "median", "least … greatest", "goal", "")]
    for row in results.rows():
        figure = row.figure
        goal = str(row.goal) if row.goal else ""
        cells.append((row.name, with_unit(figure.median, figure.unit), spread(figure), goal, verdict(row)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [
        lines[0],
        *lines[1:],
        *(f"NOT MEASURED  {one.name}: {one.failed.strip().splitlines()[-1]}" for one in results.sections if one.failed),
    ]


@dataclass(frozen=True, slots=True)
class Change:
    """A figure or a row that is another than it was, by more than the turns of either run differ."""

    name: str
    before: Figure
    after: Figure

    @property
    def factor(self) -> float:
        """How many times what it was."""
        return self.after.median / self.before.median if self.before.median else float("inf")


def differs(before: Figure, after: Figure) -> bool:
    """Whether either median lies outside of what the other run's turns gave, and is not nearly the same."""
    if before.unit != after.unit:
        return False
    outside = not before.least <= after.median <= before.greatest and not after.least <= before.median <= after.greatest
    return outside and abs(after.median - before.median) > LEAST_CHANGE * abs(before.median)


def changes(before: Results, after: Results) -> tuple[list[Change], list[Change]]:
    """Compare two runs: rows, and figures, that changed by more than the spread. What one lacks is not compared."""
    rows = {row.name: row.figure for row in before.rows()}
    figures = dict(before.figures())
    changed_rows = [
        Change(row.name, rows[row.name], row.figure)
        for row in after.rows()
        if row.name in rows and differs(rows[row.name], row.figure)
    ]
    changed_figures = [
        Change(name, figures[name], figure)
        for name, figure in after.figures()
        if name in figures and differs(figures[name], figure)
    ]
    return changed_rows, changed_figures


def comparison(before: Results, after: Results) -> list[str]:
    """Write what changed, as lines for a terminal."""
    rows, figures = changes(before, after)
    lines = []
    for title, found in (("rows", rows), ("figures", figures)):
        lines.append(f"{title} that changed by more than the spread: {len(found) or 'none'}")
        for change in found:
            unit = change.after.unit
            before_, after_ = with_unit(change.before.median, unit), with_unit(change.after.median, unit)
            lines.append(f"  {change.name}: {before_} → {after_} ({change.factor:.2f} times)")
    # Another relbuild is what is compared.
    other = [name for name in after.machine if name != "relbuild" and before.machine.get(name) != after.machine[name]]
    if other:
        lines.append(f"the runs were made with another {', '.join(other)}: only ratios can be compared")
    return lines
