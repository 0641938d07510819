"""A scenario's options and its result."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Scenario = Callable[[Path, int, int], tuple[int, str]]
"""In a folder, so many rounds, with a seed: how much was lost, and what was done."""


def run(name: str, scenario: Scenario) -> int:
    """Run it as the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog=f"ci/torture {name}")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, help="write a line into this file")
    given = parser.parse_args()
    # Whoever ends it has its servers and processes ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    with _folder() as folder:
        losses, told = scenario(folder, given.rounds, given.seed)
    words = (name, given.rounds, given.seed, losses, round(time.monotonic() - began), _measured(), told)
    line = "\t".join(str(word) for word in words)
    print(line)
    if given.result is not None:
        new = not given.result.exists()
        with given.result.open("a") as file:
            file.write(
                ("scenario\trounds\tseed\tlosses\tseconds\trelbuild\twhat was done\n" if new else "") + line + "\n"
            )
    return int(losses > 0)


def _measured() -> str:
    """What Git calls the folder `pipeline` of the last commit, with a `+` where the files are others."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    named = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD:pipeline"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "pipeline"], check=False).returncode != 0
    return named.stdout.strip() + ("+" if changed else "")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="relbuild-torture-", dir=base if os.access(base, os.W_OK) else None
    ) as name:
        yield Path(name)
