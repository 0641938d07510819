"""Write the figures and plots of docs/performance.md from the results of one or several runs; see ci/bench.

What stands between `<!-- measured: NAME -->` and `<!-- end -->` is written anew, the rest is left alone.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import results
import sections
import svg
from results import Results, SectionResult, at_limit, number, spread, verdict, with_unit
from turns import RATIO, ROOT, BenchFailed, Figure, Row, Section, straight

DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
COMPARED = {
    "cold-gzip": "cold build",
    "cold-zstd": "cold build",
    "unchanged": "nothing changed",
    "publish": "registry, fresh",
    "solve": "names, cold",
}
"""Sections whose seconds are drawn side by side, and what of each."""
WHERE, WHERE_PLOT = "stage of a cold build", "where.svg"
_PART = re.compile(r"(<!-- measured: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(found: Results, known: Mapping[str, Section]) -> str:
    """All rows as tables of Markdown, those with a goal first, and a line for each section that was not measured."""
    goals = [row for row in found.rows() if row.goal is not None]
    beyond = sum(row.met is False and row.beyond_machine for row in goals)
    said = f" {beyond} of the others {'is' if beyond == 1 else 'are'} beyond the machine." if beyond else ""
    lines = [f"{sum(bool(row.met) for row in goals)} of {len(goals)} goals are met.{said}", ""]
    lines += ["| what | median | least … greatest | goal | | at the machine's limit |", "|---|---|---|---|---|---|"]
    for row in goals:
        cells = (row.name, _shown(row.figure), spread(row.figure), str(row.goal), _verdict(row), at_limit(row))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {title} | not measured{why} | | | | |" for title, why in _missing(found, known)]
    lines += ["", *_failed_since(found)]
    lines += ["Compared without a goal:", ""]
    lines += ["| what | median | least … greatest | at the machine's limit |", "|---|---|---|---|"]
    for row in found.rows():
        if row.goal is None:
            lines.append(f"| {row.name} | {_shown(row.figure)} | {spread(row.figure)} | {at_limit(row)} |")
    return "\n".join(lines)


def _shown(figure: Figure) -> str:
    return with_unit(figure.median, figure.unit) + (" times" if figure.unit == RATIO else "")


def _verdict(row: Row) -> str:
    """The verdict, in bold where a goal is missed."""
    return f"**{verdict(row)}**" if row.met is False else verdict(row)


def _missing(found: Results, known: Mapping[str, Section]) -> list[tuple[str, str]]:
    """Titles of the sections without results, and why, as far as it is known."""
    failed = [(one.title, f": {_reason(one.failed)}") for one in found.sections if one.failed]
    measured = {one.name for one in found.sections}
    return [*failed, *((one.title, "") for name, one in known.items() if name not in measured)]


def _failed_since(found: Results) -> list[str]:
    """Say of which sections the figures are those before a failure, as a list with an empty line behind it."""
    lines = [
        f"- {one.title}: the figures are those of relbuild {one.relbuild}; a later run failed: "
        f"{_reason(one.later_failure)}"
        for one in found.sections
        if one.later_failure
    ]
    return [*lines, ""] if lines else []


def machine(found: Results) -> str:
    """Where, with which settings, and in how many turns it was measured."""
    lines = [
        f"{title}: {_listed(values)}."
        for title, values in (("Measured on", found.machine), ("Settings", found.settings))
        if values
    ]
    for (revision, turns), names in _runs(found.sections).items():
        lines.append(f"relbuild {revision}, {turns}: {', '.join(f'`{name}`' for name in names)}.")
    return "\n".join(lines)


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _runs(measured: Sequence[SectionResult]) -> dict[tuple[str, str], list[str]]:
    """Names of sections by state of relbuild and by turns; those of which nothing was measured are left out."""
    runs: dict[tuple[str, str], list[str]] = {}
    for one in measured:
        if one.turns:
            runs.setdefault((one.relbuild, _turns(one)), []).append(one.name)
    return runs


def _turns(measured: SectionResult) -> str:
    """Say how many turns count, and whether one came before them."""
    many = "one turn" if measured.turns == 1 else f"medians of {measured.turns} turns"
    return f"{many} after one that warms up" if measured.warmed_up else f"{many}, none of which warms up"


def remarks(found: Results) -> str:
    """What is to be known of peers, as a list."""
    said = dict.fromkeys(remark for section in found.sections for remark in section.remarks)
    return "\n".join(f"- {remark}" for remark in said)


def figures(found: Results) -> str:
    """All that was measured, one table for each section."""
    lines = []
    for section in found.sections:
        if not section.figures:
            continue
        lines += [
            f"**{section.title}** ({section.took:.0f} s in all)",
            "",
            "| what | who | median | least … greatest | turns |",
        ]
        lines.append("|---|---|---|---|---|")
        for what, by_whom in section.figures.items():
            for who, figure in by_whom.items():
                shown = with_unit(figure.median, figure.unit)
                lines.append(f"| {what} | {who} | {shown} | {spread(figure)} | {len(figure.values)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def curves(found: Results) -> str:
    """The plots of growth, and what each line says."""
    lines = []
    for section in found.sections:
        for curve in section.curves:
            fit, unit = straight(curve.points), curve.unit
            lines += [
                f"![{curve.name}](performance/{_file_name('growth', curve.name)})",
                "",
                f"{curve.name[0].upper()}{curve.name[1:]}: {number(fit.start, unit)} {unit} + {fit.slope:.3g} {unit} × "
                f"{curve.along}; no point is farther from the line than {fit.off:.1%} of the greatest.",
                "",
            ]
    return "\n".join(lines).rstrip()


def plots(found: Results) -> dict[str, str]:
    """All plots: file name → SVG."""
    reached = [_reached(row) for row in found.rows() if row.goal is not None]
    drawn = {"goals.svg": svg.goals("Each row against its goal: to the right is better", reached)} if reached else {}
    for section in found.sections:
        what = COMPARED.get(section.name, "")
        if what in section.figures:
            shown = [
                svg.Bar(
                    who,
                    one.median,
                    one.least,
                    one.greatest,
                    with_unit(one.median, one.unit),
                    who.startswith("relbuild"),
                )
                for who, one in section.figures[what].items()
            ]
            drawn[_file_name("seconds", section.name)] = svg.bars(f"{section.title}: seconds", shown)
        if WHERE in section.figures:
            stages = [
                svg.Bar(stage, one.median, one.least, one.greatest, with_unit(one.median, one.unit))
                for stage, one in section.figures[WHERE].items()
            ]
            drawn[WHERE_PLOT] = svg.bars(
                "Where a cold build's time goes: seconds in which a stage is under way", stages
            )
        for curve in section.curves:
            drawn[_file_name("growth", curve.name)] = svg.growth(curve.name, curve.along, curve.unit, curve.points)
    return drawn


def _reached(row: Row) -> svg.Reached:
    assert row.goal is not None
    bound, figure = row.goal.bound, row.figure
    text = f"{with_unit(figure.median, figure.unit)} ({row.goal})"
    values = [max(1e-9, value) for value in (figure.median, figure.least, figure.greatest)]

    def part(value: float) -> float:
        return value / bound if row.goal and row.goal.at_least else bound / value

    median, *ends = map(part, values)
    limit = None if row.limit is None else part(max(1e-9, row.limit.median))
    return svg.Reached(row.name, median, min(ends), max(ends), text, limit)


def _file_name(kind: str, name: str) -> str:
    return f"{kind}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.svg"


def _reason(text: str) -> str:
    return results.reason(text).replace("|", "\\|")


def pictures(found: Results) -> str:
    """The plots that are no curves, as images."""
    names = [name for name in plots(found) if name != WHERE_PLOT and not name.startswith("growth-")]
    return "\n\n".join(f"![{name.removesuffix('.svg')}](performance/{name})" for name in names)


def where(found: Results) -> str:
    """The plot of a build's stages, if they were measured."""
    return f"![where a cold build's time goes](performance/{WHERE_PLOT})" if WHERE_PLOT in plots(found) else ""


def written(text: str, parts: Mapping[str, str]) -> str:
    """Return the document with its measured parts written anew. Raises BenchFailed if it has others."""
    named = [found[2] for found in _PART.finditer(text)]
    if sorted(named) != sorted(parts):
        raise BenchFailed(f"the document has the parts {', '.join(named) or '(none)'}, not {', '.join(parts)}")
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


def parts(found: Results, known: Mapping[str, Section]) -> dict[str, str]:
    """Return all measured parts of the document."""
    return {
        "machine": machine(found),
        "table": table(found, known),
        "pictures": pictures(found),
        "curves": curves(found),
        "where": where(found),
        "remarks": remarks(found),
        "figures": figures(found),
    }


def main() -> None:
    """Write the document and its plots."""
    if len(sys.argv) == 1:
        sys.exit("usage: ci/bench document FILE… (which `ci/bench all --json FILE` wrote)")
    found = functools.reduce(results.merged, [results.read(Path(name)) for name in sys.argv[1:]])
    known = sections.known()
    order = [*known, *(one.name for one in found.sections)]
    found = Results(found.machine, found.settings, sorted(found.sections, key=lambda one: order.index(one.name)))
    text = written(DOCUMENT.read_text(encoding="utf-8"), parts(found, known))
    DOCUMENT.write_text(text, encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    for name, text in plots(found).items():
        (PLOTS / name).write_text(text, encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)} and {len(plots(found))} plots")


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as error:
        sys.exit(f"ci/bench: {error}")
