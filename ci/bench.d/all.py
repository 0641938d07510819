"""Run all sections, or those that are named, and print the table; see ci/bench."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import results
from results import Results, SectionResult
from turns import ROOT, BenchFailed, Section, Session, adopt_orphans, run

HERE = Path(__file__).parent


def sections() -> dict[str, Section]:
    """Return what the files of this folder have to measure, by name, in the order of files."""
    found: dict[str, Section] = {}
    for path in sorted(HERE.glob("*.py")):
        if "\nSECTIONS = (" in path.read_text():
            found |= {one.name: one for one in importlib.import_module(path.stem).SECTIONS}
    return found


def measured(section: Section, turns: int, base: Path | None, settings: dict[str, str]) -> SectionResult:
    """Run one section in a folder of its own. What fails in it is said in its result."""
    print(f"  {section.name}: {section.title}", file=sys.stderr)
    began, failed = time.monotonic(), ""
    with tempfile.TemporaryDirectory(dir=base, prefix="relbuild-bench-") as name:
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
        round(took, 1),
        session.figures,
        session.rows,
        session.curves,
        session.remarks,
        failed,
    )


def machine() -> dict[str, str]:
    """Describe where and what is measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    revision = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "relbuild": revision.stdout.strip(),
    }


def main() -> int:
    """Measure and print. The exit status is 1 if a goal is missed or something could not be measured."""
    parser = argparse.ArgumentParser(prog="ci/bench all", description="Measures relbuild beside its peers, in turn.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="which ones (default: all); see --list")
    parser.add_argument("--turns", type=int, default=5, help="that count, after one that warms up (default: 5)")
    parser.add_argument("--product", default="", help="whose image is made (default: mysql)")
    parser.add_argument("--packages", type=int, help="of the repository that is solved in (default: 69000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--against", type=Path, metavar="FILE", help="say what changed since these results")
    parser.add_argument("--list", action="store_true", help="list the sections")
    options = parser.parse_args()
    known = sections()
    if options.list:
        print("\n".join(f"{one.name:<18} {one.title}" for one in known.values()))
        return 0
    if unknown := [name for name in options.sections if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; sections are {', '.join(known)}")
    before = results.read(options.against) if options.against else None
    chosen = [section for name, section in known.items() if not options.sections or name in options.sections]
    if any(section.mirror for section in chosen):
        run(ROOT / "ci" / "mirror", "--quiet")
    adopt_orphans()
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    load, began = os.getloadavg()[0], time.monotonic()
    settings = {"product": options.product} if options.product else {}
    settings |= {"packages": str(options.packages)} if options.packages else {}
    found = Results(
        machine(), options.turns, tuple(measured(section, options.turns, base, settings) for section in chosen)
    )
    print(f"{options.turns} turns, medians; {time.monotonic() - began:.0f} s in all; load before: {load:.2f}")
    print("\n".join(results.table(found)))
    if options.json:
        results.write(found, options.json)
    if before is not None:
        print("\n".join(results.comparison(before, found)))
    bad = any(row.met is False for row in found.rows()) or any(one.failed for one in found.sections)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as error:
        sys.exit(f"ci/bench: {error}")
