"""One look at start-up: the processor time of commands before their first line of work, against `dnf --version`.

All are measured in turn, in one run, as whole processes; user and system time together, so that what other processes
do changes little. The medians' ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEER = "dnf --version"
COMMANDS = ("--help", "version", "verify --help", "publish --help", "store gc --help", "nightly --help", "build --help")


def processor_seconds(words: list[str]) -> float:
    """Run a command to its end and return the user and system time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Compiled files are written, whatever the environment says: an installed program has them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        words, env={**environment, "PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="ci/bench start")
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    measured = {PEER: PEER.split(), "python -c pass": [sys.executable, "-c", "pass"]}
    measured |= {f"relbuild {words}": [sys.executable, "-m", "pipeline", *words.split()] for words in COMMANDS}
    figures: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(runs + 1):
        for name, words in measured.items():
            seconds = processor_seconds(words)
            if turn:  # The first is the warm-up.
                figures[name].append(seconds)
    peer = statistics.median(figures[PEER])
    print(f"{runs} runs, milliseconds of processor time as min / median / max, ratio of medians to {PEER}")
    for name, seconds in figures.items():
        low, middle, high = (value * 1000 for value in (min(seconds), statistics.median(seconds), max(seconds)))
        print(f"  {name:<24} {low:6.0f} / {middle:6.0f} / {high:6.0f}   {middle / 1000 / peer:5.2f}")


main()
