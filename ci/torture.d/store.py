"""A store that eight build on at once, some of them killed, while what is not used is collected."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import rounds

from pipeline.oci import validate_layout
from tests.support.product_builds import RECIPE, small_products
from tests.support.rpm_factory import forge

ROOT = Path(__file__).parents[2]
BUILDERS = 8
_SECONDS = 600
_KILLED_WITHIN = 2.0
"""Seconds after their start in which builders are killed: a build of these takes about that on a loaded machine."""


def store(folder: Path, count: int, seed: int) -> tuple[int, str]:
    """Each round: eight products change and are built at once, two of them by builders that are killed, while another
    process collects all that was not used. Then all are built once more, and the store is checked."""
    with forge(folder) as made:
        small_products(folder / "work", made)
    work, dice = folder / "work", random.Random(seed)
    losses: list[str] = []
    told: Counter[str] = Counter()
    for number in range(count):
        names = [f"p{index}" for index in range(BUILDERS)]
        for name in names:
            words = {"name": name, "version": f"1.{number}", "note": "", "expected": f"1.{number}", "mode": "0644"}
            (work / f"{name}.yaml").write_text(RECIPE % words)
        with _collecting(work, losses) as collected:
            builders = {name: _start(work, "build", f"{name}.yaml", "--no-smoke") for name in names}
            for name in dice.sample(names, 2):
                time.sleep(dice.uniform(0, _KILLED_WITHIN / 2))
                builders[name].send_signal(signal.SIGKILL)
            for name, builder in builders.items():
                said = builder.communicate(timeout=_SECONDS)[1].decode(errors="replace")
                told["killed" if builder.returncode == -signal.SIGKILL else "built"] += 1
                if builder.returncode not in (0, -signal.SIGKILL):
                    losses.append(f"round {number}: {name} ended with {builder.returncode}: {said[-600:]}")
        told += collected
        for name in names:
            again = _start(work, "build", f"{name}.yaml", "--no-smoke")
            said = again.communicate(timeout=_SECONDS)[1].decode(errors="replace")
            problems = validate_layout(work / "output" / name)
            if again.returncode != 0 or problems:
                losses.append(f"round {number}: {name} again: {again.returncode} {problems} {said[-600:]}")
        checked = _start(work, "store", "fsck")
        said = checked.communicate(timeout=_SECONDS)[1].decode(errors="replace")
        if checked.returncode != 0:
            losses.append(f"round {number}: fsck: {said[-600:]}")
    print(*losses, sep="\n")
    return len(losses), ", ".join(f"{count} {what}" for what, count in sorted(told.items()))


@contextlib.contextmanager
def _collecting(work: Path, found: list[str]) -> Iterator[Counter[str]]:
    """`store gc` in a loop beside. How often it ran; what it complained of goes into `found`."""
    ended = threading.Event()
    told: Counter[str] = Counter()

    def loop() -> None:
        while not ended.is_set():
            done = _start(work, "store", "gc", "--older-than", "0", "--locks", ".")
            said = done.communicate(timeout=_SECONDS)[1].decode(errors="replace")
            told["collections"] += 1
            if done.returncode != 0:
                found.append(f"gc ended with {done.returncode}: {said[-600:]}")

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        thread.join()


def _start(work: Path, *words: str) -> subprocess.Popen[bytes]:
    more = ["--store", "store"] + ([] if words[0] == "store" else ["--output", "output", "--progress", "none"])
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words, *more],
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(work), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


if __name__ == "__main__":
    sys.exit(rounds.run("store", store))
