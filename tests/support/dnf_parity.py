"""Packages that dnf chooses, and those that relbuild chooses, for the same requests.

dnf itself is asked, by dnf_solve.py under the system's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ResolutionError
from pipeline.model.platform import Platform
from pipeline.model.recipe import LayerPlan, Recipe, Request
from pipeline.repos import OpenRepository, open_repositories
from pipeline.resolve import solve
from pipeline.store import Store
from tests.support.rpmmd import Rpm
from tests.support.source import ROOT

SEED = int(os.environ.get("RELBUILD_PARITY_SEED", "20261124"))
ARCH = "x86_64"

Sets = Sequence[Sequence[str]]


def dnf(
    folder: Path,
    repositories: Mapping[str, Mapping[str, Any]],
    sets: Sets,
    *,
    weak: bool = False,
    exclude: Sequence[str] = (),
    modules: Sequence[str] = (),
) -> list[list[str] | None]:
    """What dnf chooses for each set."""
    root = folder / "dnf"
    root.mkdir()
    asked = {
        "repositories": repositories, "arch": ARCH, "releasever": "1", "root": str(root),
        "weak": weak, "exclude": list(exclude), "modules": list(modules), "sets": sets,
    }  # fmt: skip
    done = subprocess.run(
        ["/usr/bin/python3", str(ROOT / "tests/support/dnf_solve.py")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[list[str] | None] = json.loads(done.stdout)
    return answers


class Ours:
    """relbuild's answers."""

    def __init__(self, folder: Path, platform: Platform, environment: Mapping[str, str]) -> None:
        self.store = Store.open(folder / "store")
        self.platform = platform
        self.opened: tuple[OpenRepository, ...] = open_repositories(
            platform, ARCH, variables=environment, store=self.store
        )

    def choose(
        self, texts: Sequence[str], *, weak: bool = False, exclude: Sequence[str] = (), modules: Sequence[str] = ()
    ) -> list[str] | None:
        layer = LayerPlan("all", tuple(Request(text, "test") for text in texts))
        recipe = Recipe(
            "test", Path("test.yaml"), "1", self.platform.name, (ARCH,), (layer,),
            weak_dependencies=weak, excludes=tuple(exclude), modules=tuple(modules),
        )  # fmt: skip
        return self.solve(recipe)

    def solve(self, recipe: Recipe) -> list[str] | None:
        try:
            section = solve(recipe, self.platform, ARCH, self.opened, store=self.store)
        except ResolutionError:
            return None
        return sorted(str(one.package.nevra) for one in section.resolution.chosen)


def compared(sets: Sets, theirs: Sequence[list[str] | None], ours: Sequence[list[str] | None]) -> int:
    """Fail with every difference; returns how many sets had a solution."""
    differences = [
        f"{' '.join(asked)}\n  dnf:      {dnfs}\n  relbuild: {own}"
        for asked, dnfs, own in zip(sets, theirs, ours, strict=True)
        if dnfs != own
    ]
    assert not differences, "\n".join([f"{len(differences)} of {len(sets)} differ", *differences])
    return sum(one is not None for one in theirs)


def artifact(rpm: Rpm) -> str:
    epoch, _, rest = rpm.evr.rpartition(":")
    return f"{rpm.name}-{epoch or 0}:{rest}.{rpm.arch}"


def module_document(module: str, stream: str, version: int, artifacts: Sequence[str], gone: Sequence[str]) -> str:
    return (
        f'---\ndocument: modulemd\nversion: 2\ndata:\n  name: {module}\n  stream: "{stream}"\n  version: {version}\n'
        "  context: c0ffee00\n  arch: x86_64\n  summary: s\n  description: d\n"
        "  license: {module: [MIT], content: [MIT]}\n  dependencies:\n  - requires: {platform: [el9]}\n"
        + (f"  demodularized: {{rpms: [{', '.join(gone)}]}}\n" if gone else "")
        + (f"  artifacts: {{rpms: [{', '.join(map(json.dumps, artifacts))}]}}\n" if artifacts else "")
        + "...\n"
    )
