"""Runs the fuzzing of each target in a process of its own, and says how much was executed and found."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_INPUT_SECONDS = 10
_INPUT_MIB = 2048
_LENGTH = 8192
"""Bytes of an input: what is longer is cut, so that an execution stays quick."""


def main() -> int:
    """Fuzz the targets that were named, or all."""
    given = _arguments()
    if given.list:
        print("\n".join(TARGETS))
        return 0
    finds = 0
    for name in given.target or TARGETS:
        if name not in TARGETS:
            sys.exit(f"no such target: {name}; there are: {', '.join(TARGETS)}")
        finds += _fuzz(name, given)
    return 1 if finds else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*")
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=10_000, help="executions of each target")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target, at the most")
    parser.add_argument("--result", type=Path, help="write a line for each target into this file")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="where inputs that were found are kept")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def _fuzz(name: str, given: argparse.Namespace) -> int:
    """1 if something was found."""
    work = given.work / name
    work.mkdir(parents=True, exist_ok=True)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    given.finds.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("one.py"),
            name,
            str(work),
            str(CORPUS / name),
            f"-runs={given.runs}",
            f"-max_total_time={max(1, round(given.minutes * 60))}",
            f"-timeout={_INPUT_SECONDS}",
            f"-rss_limit_mb={_INPUT_MIB}",
            f"-max_len={_LENGTH}",
            f"-artifact_prefix={given.finds / name}-",
            "-print_final_stats=1",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout + done.stderr
    executed = _EXECUTED.findall(said)
    covered = _COVERED.findall(said)
    seconds = time.monotonic() - began
    found = int(done.returncode != 0)
    words = (name, executed[-1] if executed else 0, covered[-1] if covered else 0, round(seconds), found)
    print("\t".join(str(word) for word in words), flush=True)
    if done.returncode:
        print(said[-3000:], flush=True)
    if given.result is not None:
        new = not given.result.exists()
        with given.result.open("a") as file:
            if new:
                file.write("target\texecutions\tcovered\tseconds\tfinds\n")
            file.write("\t".join(str(word) for word in words) + "\n")
    return found


if __name__ == "__main__":
    sys.exit(main())
