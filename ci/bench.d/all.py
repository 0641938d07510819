"""Run all sections, or those that are named, and print the table; see ci/bench."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import machine
import results
import sections
from product import DEFAULT
from results import Results
from solve import PACKAGES
from turns import ROOT, BenchFailed, adopt_orphans, run


def revision() -> str:
    """Describe which state of relbuild is measured."""
    said = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()


def main() -> int:
    """Measure and print. The exit status is 1 if a goal is missed or something could not be measured."""
    parser = argparse.ArgumentParser(prog="ci/bench all", description="Measures relbuild beside its peers, in turn.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="which ones (default: all); see --list")
    parser.add_argument("--turns", type=int, default=5, help="that count, after one that warms up (default: 5)")
    parser.add_argument("--product", default=DEFAULT, help=f"whose image is made (default: {DEFAULT})")
    parser.add_argument(
        "--packages", type=int, default=PACKAGES, help=f"of the repository that is solved in (default: {PACKAGES})"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the results; FILE keeps those of other sections",
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="say what changed since these results")
    parser.add_argument("--list", action="store_true", help="list the sections")
    options = parser.parse_args()
    known = sections.known()
    if options.list:
        print("\n".join(f"{one.name:<18} {one.title}" for one in known.values()))
        return 0
    if unknown := [name for name in options.sections if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; sections are {', '.join(known)}")
    before = results.read(options.against) if options.against else None
    kept = results.read(options.json) if options.json and options.json.exists() else None
    chosen = [section for name, section in known.items() if not options.sections or name in options.sections]
    if any(section.mirror for section in chosen):
        run(ROOT / "ci" / "mirror", "--quiet")
    adopt_orphans()
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    load, began = os.getloadavg()[0], time.monotonic()
    settings = {"product": options.product, "packages": str(options.packages)}
    found = Results(machine.machine(), settings, ())
    if kept is not None:
        results.merged(kept, found)  # Refused now, and not when all is measured.
    for section in chosen:
        said = sections.measured(section, options.turns, base, settings, revision())
        found = Results(found.machine, settings, (*found.sections, said))
        if options.json:  # After each: what was measured is not lost if the run is ended.
            results.write(results.merged(kept, found) if kept else found, options.json)
    print(f"{options.turns} turns, medians; {time.monotonic() - began:.0f} s in all; load before: {load:.2f}")
    print("\n".join(results.table(found)))
    if before is not None:
        print("\n".join(results.comparison(before, found)))
    bad = any(row.met is False for row in found.rows()) or any(one.failed for one in found.sections)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as error:
        sys.exit(f"ci/bench: {error}")
