"""Builds by a command line that forks children, and tells which; what a child does is for the program that is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import HUNG
from tests.support.product_builds import RECIPE, small_products
from tests.support.rpm_factory import Forge
from tests.support.source import ROOT


@dataclass(frozen=True, slots=True)
class ForkingBuilder:
    """Recipes of a small product in `folder`, made by `forking_builder`; each store knows nothing yet.

    `program` is Python: it takes what the child is to do from `sys.argv`, calls `main`, and writes the number of each
    process that it forks into the file of the variable FORKS. It may write into those of MODULES and PLACED.
    """

    folder: Path
    program: str

    def write(self, name: str, more: str = "") -> None:
        words = {"name": name, "version": "1.0", "note": "", "expected": "1\\\\.0", "mode": "0644"}
        (self.folder / f"{name}.yaml").write_text(RECIPE % words + more)

    def begin(self, child: str, store: str, *words: str) -> subprocess.Popen[str]:
        environment = {
            **{name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPYCACHEPREFIX") if name in os.environ},
            **{"PYTHONPATH": str(ROOT), "RELBUILD_STORE": str(self.folder / store), "FORKS": str(self.forks)},
            **{"RELBUILD_OUTPUT": str(self.folder / "output")},
            **{"MODULES": str(self.modules), "PLACED": str(self.placed)},
        }
        self.forks.write_text("")
        self.placed.write_text("")
        command = [sys.executable, "-c", self.program, child, "build", "--no-smoke", "--json", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, cwd=self.folder, start_new_session=True, **pipes)

    def build(self, child: str, store: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """Build, and return the exit status, the answer and what was said besides; no child is left."""
        with self.begin(child, store, *words) as running:
            out, err = running.communicate(timeout=HUNG)
        assert [number for number in self.children() if Path("/proc", number).exists()] == []
        return running.returncode, json.loads(out), err

    def digest(self, child: str, store: str, *words: str) -> str:
        """Build, and return the image's digest."""
        status, answer, said = self.build(child, store, *words)
        assert status == 0, said
        digest: str = answer["built"][0]["digest"]
        return digest

    def children(self) -> list[str]:
        """Return the numbers of the processes that were forked."""
        return self.forks.read_text().split()

    @property
    def forks(self) -> Path:
        return self.folder / "forks"

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    @property
    def placed(self) -> Path:
        return self.folder / "placed"


def forking_builder(folder: Path, forge: Forge, program: str) -> ForkingBuilder:
    """Make the packages of small products in `folder`."""
    small_products(folder, forge)
    return ForkingBuilder(folder, program)
