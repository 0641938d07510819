"""Start here: which faults happen to which calls of which commands, and what came of it."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subject import Tally

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from plan import Fault, Plan, build_library  # noqa: E402


def main() -> None:
    """Parse, load the library into this process by starting it anew, and inject."""
    given = _arguments()
    if "RELBUILD_FAULTS" not in os.environ:
        _begin_anew(given.cache)
    root = Path(os.environ["RELBUILD_FAULTS"]).parent
    try:
        sys.exit(_inject(given, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _begin_anew(cache: Path) -> None:
    library = build_library(cache)
    fast = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="relbuild-faults-", dir=fast if fast.is_dir() else None))
    Plan(root)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "LD_PRELOAD": str(library),
        "RELBUILD_FAULTS": str(root / "plan"),
        "PYTHONPATH": str(ROOT),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--command", action="append", help="of these alone (default: all)")
    parser.add_argument("--fault", action="append", type=Fault, choices=list(Fault), help="default: kill, EIO")
    parser.add_argument("--forever", action="store_true", help="from the call on, and not only once")
    parser.add_argument("--sample", type=int, default=0, help="so many calls of each command by chance (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=1, help="begin with this call")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after that")
    parser.add_argument("--result", type=Path, help="write a line for each command and fault into this file")
    parser.add_argument("--list", action="store_true", help="only list the calls")
    return parser.parse_args()


def _inject(given: argparse.Namespace, root: Path) -> int:
    # Here and not above: relbuild is loaded once the library is.
    from runs import load_all
    from scenarios import SCENARIOS, prepared
    from subject import Subject, Tally

    load_all()
    chosen = [one for one in SCENARIOS if not given.command or one.name in given.command]
    unknown = set(given.command or ()) - {one.name for one in SCENARIOS}
    if unknown:
        sys.exit(f"no such command: {', '.join(unknown)}; there are: {', '.join(one.name for one in SCENARIOS)}")
    deadline = time.monotonic() + given.minutes * 60
    bad = 0
    with prepared(root, frozenset(one.name for one in chosen)) as place:
        for scenario in chosen:
            subject = Subject(place, scenario, Plan(root))
            calls = subject.undisturbed()
            if given.list:
                for call in calls:
                    print(call.number, call.name, subject.short(call.path), subject.short(call.other), sep="\t")
                continue
            for fault in given.fault or (Fault.KILL, Fault.EIO):
                tally = Tally(len(calls))
                for number in _numbers(len(calls), given, fault):
                    if time.monotonic() > deadline:
                        break
                    subject.try_fault(fault, number, tally, forever=given.forever, seed=given.seed)
                bad += len(tally.bad)
                _report(scenario.name, fault, tally, given)
    return 1 if bad else 0


def _numbers(calls: int, given: argparse.Namespace, fault: Fault) -> list[int]:
    """Which calls; a crash is tried after the last one too."""
    every = range(given.first, calls + 1 + (fault is Fault.CRASH))
    if not given.sample or given.sample >= len(every):
        return list(every)
    return sorted(random.Random(given.seed).sample(every, given.sample))


def _report(name: str, fault: Fault, tally: Tally, given: argparse.Namespace) -> None:
    statuses = " ".join(f"{status}:{count}" for status, count in sorted(tally.statuses.items()))
    how = "for good" if given.forever else "once"
    options = f"--sample {given.sample} --seed {given.seed}" if given.sample else ""
    words = (name, fault, how, tally.calls, tally.runs, tally.harmless, len(tally.bad), statuses, options)
    line = "\t".join(str(word) for word in words)
    print(line, flush=True)
    if given.result is not None:
        new = not given.result.exists()
        with given.result.open("a") as file:
            if new:
                file.write("command\tfault\thow\tcalls\truns\tnot reached\tlosses\texit statuses\toptions\n")
            file.write(f"{line}\n")


if __name__ == "__main__":
    main()
