"""All sections of `ci/bench all`, and one run of one of them."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from results import SectionResult
from turns import BenchFailed, Section, Session

HERE = Path(__file__).parent


def known() -> dict[str, Section]:
    """Return what the files of this folder have to measure, by name, in the order of files."""
    found: dict[str, Section] = {}
    for path in sorted(HERE.glob("*.py")):
        if "\nSECTIONS = (" in path.read_text():
            found |= {one.name: one for one in importlib.import_module(path.stem).SECTIONS}
    return found


def measured(
    section: Section, turns: int, base: Path | None, settings: Mapping[str, str], revision: str
) -> SectionResult:
    """Run one section in a folder of its own. What fails in it is said in its result."""
    print(f"  {section.name}: {section.title}", file=sys.stderr)
    began, failed = time.monotonic(), ""
    with tempfile.TemporaryDirectory(dir=base, prefix="relbuild-bench-", ignore_cleanup_errors=True) as name:
        session = Session(Path(name), turns, settings)
        try:
            section.measure(session)
        except Exception as error:  # The other sections are measured all the same.
            failed = str(error) if isinstance(error, BenchFailed) else "".join(traceback.format_exception(error))
            print(f"    not measured: {failed}", file=sys.stderr)
    took = time.monotonic() - began
    print(f"    {took:.0f} s", file=sys.stderr)
    return SectionResult(
        section.name,
        section.title,
        revision,
        round(took, 1),
        session.figures,
        session.rows,
        session.curves,
        session.remarks,
        session.warmed_up,
        failed,
    )
