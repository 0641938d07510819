"""Two nights at once on one directory mirror, for as many rounds as are asked for.

In each round packages change and two nights begin together, each with a store of its own; in every other round one is
killed at a moment that differs from round to round, and a third follows. After each round: what a night called built
is on the mirror, every tag verifies, each night that ended has its record, and nothing is left in flight.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rounds

from tests.support.catalogue import PASSWORD, PRODUCTS, SmallCatalogue, small_catalogue
from tests.support.rpm_factory import forge

PATIENCE = 1800.0
"""Seconds for one night. It takes ten, and many times that beside other work, which is no loss."""

CHANGED = ("lone", "third", "addon")
"""Packages of which each round brings a new version."""


@dataclass(slots=True)
class Tally:
    """What was done and what was lost."""

    rounds: int = 0
    ended: int = 0
    killed: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Night:
    """A night under way, with a store of its own and in a process group of its own."""

    small: SmallCatalogue
    store: str
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        own = f"--output output-{self.store} --store {self.store}"
        words = f"recipes --to dir:mirror --key night.key --json --progress none {own}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "nightly", *words.split()],
            env={**self.small.environment, "RELBUILD_KEY_PASSWORD": PASSWORD},
            cwd=self.small.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, tally: Tally) -> dict[str, Any] | None:
        """Wait for it; what it says, None if it says nothing that is an answer."""
        out, err = self.process.communicate(timeout=PATIENCE)
        if self.process.returncode != 0:
            tally.lost.append(
                f"round {tally.rounds}: a night ended with {self.process.returncode}: {(err or out)[-600:]}"
            )
        try:
            said: dict[str, Any] = json.loads(out)
        except ValueError:
            return None
        return said

    def kill(self) -> None:
        """SIGKILL to it and to all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def one_round(small: SmallCatalogue, tally: Tally, chance: random.Random) -> None:
    """Two nights at once, and what is looked at afterwards."""
    tally.rounds += 1
    for name in CHANGED:
        small.package(name, f"{tally.rounds}.{chance.randrange(100)}")
    small.index()
    first, second = Night(small, "one"), Night(small, "two")
    if tally.rounds % 2 == 0:
        time.sleep(chance.uniform(0.2, 8.0))
        second.kill()
        tally.killed += 1
        told = [first.end(tally), Night(small, "two").end(tally)]
    else:
        told = [first.end(tally), second.end(tally)]
    tally.ended += len(told)
    tally.lost += [f"round {tally.rounds}: {problem}" for problem in _problems(small, told, tally.ended)]


def _problems(small: SmallCatalogue, told: list[dict[str, Any] | None], ended: int) -> Iterator[str]:
    published = [night for night in told if night is not None]
    for night in published:
        for product in night["products"]:
            if product["outcome"] not in ("built", "unchanged", "retested"):
                yield f"{product['name']} {product['outcome']}: {product['why']}"
    digests = {(one["name"], one["digest"]) for night in published for one in night["products"]}
    if len(digests) != len(PRODUCTS):
        yield f"two nights of the same packages came to {len(digests)} images of {len(PRODUCTS)} products"
    for name in PRODUCTS:
        done = small.relbuild("verify", f"dir:mirror/{name}:latest", "--key", "night.pub", store="one")
        if done.returncode != 0:
            yield f"{name} does not verify: {done.stderr[-400:]}"
    pages = small.mirror / "nightly"
    records = {json.loads(path.read_text())["run"] for path in (pages / "nights").glob("*.json")}
    missing = {night["run"] for night in published} - records
    if missing:
        yield f"{len(missing)} of {len(published)} nights have no record"
    if len(records) < min(ended, 60):
        yield f"{len(records)} records of {ended} nights that ended"
    left = [str(path) for path in (*small.mirror.rglob("*.draft"), *pages.rglob(".*.draft"))]
    if left:
        yield f"left behind: {', '.join(left[:5])}"


def nights(folder: Path, count: int, seed: int) -> tuple[int, str]:
    """So many rounds of two nights; the losses are printed as they are found."""
    tally, chance = Tally(), random.Random(seed)
    with forge(folder) as made:
        small = small_catalogue(folder / "catalogue", made)
        for _ in range(count):
            before = len(tally.lost)
            one_round(small, tally, chance)
            print(*tally.lost[before:], f"round {tally.rounds}: {len(tally.lost)} lost", sep="\n", flush=True)
    return len(tally.lost), f"{tally.ended} nights ended, {tally.killed} nights killed"


if __name__ == "__main__":
    sys.exit(rounds.run("nights", nights))
