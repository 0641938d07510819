"""A night over eight recipes that share layers, against the sum of nights over each of them alone.

Each begins with an empty store and an empty mirror, resolves, builds, tests and publishes to a directory.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from product import emptied
from turns import ROOT, Goal, Section, Session, relbuild

from tests.support.signing_examples import PRIVATE

RECIPES = ("haproxy", "httpd", "memcached", "nginx", "postgresql", "python", "redis", "valkey")
TOGETHER, ALONE, NIGHT = "all eight", "each alone, the sum", "night"
TURNS = 2
"""At most: a turn takes a minute, and the sum of eight is steady."""


def measure(session: Session) -> None:
    """One night over all, and eight over one each, in every turn."""
    for _ in session.turns(warm_up=False, most=TURNS):
        session.take(TOGETHER, NIGHT, lambda: night(session.folder, RECIPES))
        seconds, processor = 0.0, 0.0
        for name in RECIPES:
            seconds += session.take(name, NIGHT, lambda: night(session.folder, (name,)))  # noqa: B023
            processor += session.of(name, f"{NIGHT}, CPU")[-1]
        session.record(ALONE, NIGHT, seconds)
        session.record(ALONE, f"{NIGHT}, CPU", processor, "CPU s")
    most = Goal(0.55)
    session.ratio(
        "eight recipes that share layers: time of the sum of single builds", (TOGETHER, NIGHT), (ALONE, NIGHT), most
    )
    session.ratio(
        "eight recipes that share layers: CPU of the sum of single builds",
        (TOGETHER, f"{NIGHT}, CPU"),
        (ALONE, f"{NIGHT}, CPU"),
    )


def night(base: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Run one night from nothing and return its record."""
    with emptied(base, "night") as folder:
        for part in ("recipes", "templates"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.lock"))
        (folder / "key").write_bytes(PRIVATE)
        (folder / "key").chmod(0o600)
        said = relbuild(
            "nightly", *(folder / "recipes" / f"{name}.yaml" for name in names), "--to", f"dir:{folder}/mirror",
            "--key", folder / "key", "--store", folder / "store", "--output", folder / "output", "--json",
            "--progress", "none",
        )  # fmt: skip
        return dict(json.loads(said))


SECTIONS = (Section("shared", "Eight recipes that share layers, in one night", measure),)
