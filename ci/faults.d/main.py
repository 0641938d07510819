"""Start here: injects the faults that were asked for into the calls of the commands that were asked for."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subject import Subject

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import results  # noqa: E402
from plan import Fault, Plan, build_library  # noqa: E402

_KEPT_EVERY = 20
"""Injections after which the file of results is written anew: what a run that is ended may lose of it."""


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
    parser.add_argument("--call", type=int, action="append", help="these calls alone, by their number in --list")
    parser.add_argument("--again", action="store_true", help="also what stands in the file of --result already")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="for each command and fault; what is left is for another run"
    )
    parser.add_argument(
        "--result", type=Path, help="add what comes of it to a row of this file; begin where that ended"
    )
    parser.add_argument("--list", action="store_true", help="only list the calls")
    return parser.parse_args()


def _inject(given: argparse.Namespace, root: Path) -> int:
    # Here and not above: relbuild is loaded once the library is.
    from runs import load_all
    from scenarios import SCENARIOS, prepared
    from subject import Subject

    load_all()
    chosen = [one for one in SCENARIOS if not given.command or one.name in given.command]
    unknown = set(given.command or ()) - {one.name for one in SCENARIOS}
    if unknown:
        sys.exit(f"no such command: {', '.join(unknown)}; there are: {', '.join(one.name for one in SCENARIOS)}")
    kept = results.read(given.result) if given.result else {}
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
                row = results.Row(scenario.name, fault, *_how(given), _code())
                row = kept.setdefault(row.key, row)
                row.calls = len(calls)
                before = row.losses
                for done in _happen(subject, fault, row, given):
                    if given.result and (done or len(row.numbers) % _KEPT_EVERY == 0):
                        results.write(given.result, kept.values())
                bad += row.losses - before
                print(row.line(), flush=True)
    return 1 if bad else 0


def _happen(subject: Subject, fault: Fault, row: results.Row, given: argparse.Namespace) -> Iterator[bool]:
    """Let it happen to one call after the other; yields False after each, True at the end."""
    deadline = time.monotonic() + given.minutes * 60
    for number in _numbers(row.calls, given, fault):
        began = time.monotonic()
        if began > deadline:
            break
        if given.again or number not in row.numbers:
            subject.try_fault(fault, number, row, forever=given.forever, seed=given.seed)
            row.seconds += time.monotonic() - began
            yield False
    yield True


def _numbers(calls: int, given: argparse.Namespace, fault: Fault) -> list[int]:
    """Which calls, in an order by chance: if time runs out, those that were reached are from everywhere. A crash is
    tried after the last call too."""
    if given.call:
        return list(given.call)
    every = range(given.first, calls + 1 + (fault is Fault.CRASH))
    return random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))


def _how(given: argparse.Namespace) -> tuple[str, str]:
    """For how long, and which options repeat it."""
    options = f"--sample {given.sample} --seed {given.seed}" if given.sample else ""
    return "for good" if given.forever else "once", options


def _code() -> str:
    """What Git calls the folder `pipeline` as it is committed; with a `+` if it differs from that."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD:pipeline"], capture_output=True, text=True, check=False
    )
    same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "pipeline"], check=False)
    return name.stdout.strip() + ("" if same.returncode == 0 else "+") or "unknown"


if __name__ == "__main__":
    main()
