"""A run's results: as JSON, as a table, and compared with those of an earlier run. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from turns import RATIO, SHARE, BenchFailed, Curve, Figure, Goal, Row

FORMAT = 3
LEAST_CHANGE = 0.05
"""A median that differs by less is no news, however little the turns differed: a machine is not the same for long."""
BEYOND = "not met, beyond the machine"
"""What is said of a goal that is missed at the machine's raw limit too."""


@dataclass(frozen=True, slots=True)
class SectionResult:
    """What a section found, of which state of relbuild, and whether a turn that did not count came first.

    `failed` says why where it could not be measured; `later_failure` why a later run of it could not, whose figures are
    those of the run before.
    """

    name: str
    title: str
    relbuild: str
    took: float
    figures: Mapping[str, Mapping[str, Figure]]
    rows: Sequence[Row]
    curves: Sequence[Curve]
    remarks: Sequence[str]
    warmed_up: bool = True
    failed: str = ""
    later_failure: str = ""

    @property
    def turns(self) -> int:
        """The turns that count: the most values that one of its figures has."""
        return max((len(one.values) for by_whom in self.figures.values() for one in by_whom.values()), default=0)


@dataclass(frozen=True, slots=True)
class Results:
    """What one or several runs on one machine found: where, with which settings, and each section's."""

    machine: Mapping[str, str]
    settings: Mapping[str, str]
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
    """Write results as JSON, whole or not at all: a run that is ended leaves what it wrote before."""
    document = {"format": FORMAT, **asdict(results)}
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> Results:
    """Read results that `write` wrote. Raises BenchFailed if they cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise BenchFailed(f"{path} has results of format {document['format']}, not {FORMAT}: measure again")
        sections = tuple(_section(section) for section in document["sections"])
        return Results(document["machine"], document["settings"], sections)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchFailed(f"{path} holds no results of ci/bench: {type(error).__name__}: {error}") from None


def merged(earlier: Results, later: Results) -> Results:
    """Put two runs on one machine together; what both measured, the later one says.

    A section that failed in the later one keeps its earlier figures, with the text of the failure beside them. Raises
    BenchFailed if the machines or the settings differ, whose figures cannot stand side by side.
    """
    if differing := [*other_machine(earlier, later), *other_settings(earlier, later)]:
        raise BenchFailed(f"the runs cannot be put together: they were made with another {', '.join(differing)}")
    sections = {one.name: one for one in earlier.sections}
    for one in later.sections:
        known = sections.get(one.name)
        if one.failed and known is not None and not known.failed:
            sections[one.name] = replace(known, later_failure=f"{one.failed.rstrip()} (relbuild {one.relbuild})")
        else:
            sections[one.name] = one
    return Results(later.machine, later.settings, tuple(sections.values()))


def other_machine(before: Results, after: Results) -> list[str]:
    """Return in what the machines of two runs differ."""
    return _differing(before.machine, after.machine)


def other_settings(before: Results, after: Results) -> list[str]:
    """Return in what the settings of two runs differ."""
    return _differing(before.settings, after.settings)


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [name for name in dict.fromkeys((*after, *before)) if before.get(name) != after.get(name)]


def _section(value: Mapping[str, Any]) -> SectionResult:
    figures = {what: {who: _figure(one) for who, one in by_whom.items()} for what, by_whom in value["figures"].items()}
    rows = tuple(
        Row(
            row["name"],
            _figure(row["figure"]),
            Goal(**row["goal"]) if row["goal"] else None,
            _figure(row["limit"]) if row["limit"] else None,
        )
        for row in value["rows"]
    )
    curves = tuple(
        Curve(one["name"], one["along"], one["unit"], tuple((x, y) for x, y in one["points"]))
        for one in value["curves"]
    )
    return SectionResult(
        value["name"],
        value["title"],
        value["relbuild"],
        value["took"],
        figures,
        rows,
        curves,
        tuple(value["remarks"]),
        value["warmed_up"],
        value["failed"],
        value["later_failure"],
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
    """Write a value with its unit; a ratio and a share have none."""
    return number(value, unit) if unit in {RATIO, SHARE} else f"{number(value, unit)} {unit}"


def spread(figure: Figure) -> str:
    """Write the least and the greatest of the turns."""
    return f"{number(figure.least, figure.unit)} … {number(figure.greatest, figure.unit)}"


def verdict(row: Row) -> str:
    """Say whether a row reaches its goal, and where it does not, whether the machine lets it."""
    if row.met is False and row.beyond_machine:
        return BEYOND
    return {None: "", True: "met", False: "not met"}[row.met]


def at_limit(row: Row) -> str:
    """Write what the median would be at the machine's raw limit, if that was measured."""
    return "" if row.limit is None else with_unit(row.limit.median, row.limit.unit)


def table(results: Results) -> list[str]:
    """Write all rows, with goals, verdicts and limits, as lines for a terminal."""
    cells = [("what", "median", "least … greatest", "goal", "", "at the limit")]
    for row in results.rows():
        figure = row.figure
        goal = str(row.goal) if row.goal else ""
        shown = with_unit(figure.median, figure.unit)
        cells.append((row.name, shown, spread(figure), goal, verdict(row), at_limit(row)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [
        lines[0],
        *lines[1:],
        *(f"NOT MEASURED  {one.name}: {reason(one.failed)}" for one in results.sections if one.failed),
        *(f"FAILED SINCE  {one.name}: {reason(one.later_failure)}" for one in results.sections if one.later_failure),
    ]


def reason(text: str) -> str:
    """Return the line of a failure's text that names the error: the first, of a traceback the last."""
    lines = text.strip().splitlines()
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


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
    if other := other_machine(before, after):
        lines.append(f"the runs were made with another {', '.join(other)}: only ratios can be compared")
    if other := other_settings(before, after):
        lines.append(f"the runs were made with another {', '.join(other)}: not even ratios can be compared")
    return lines
