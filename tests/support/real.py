"""Packages, repositories, keys and recipes of real distributions, which are no part of the checkout.

The folder is `$RELBUILD_REAL`, else `shared/real` beside the checkout.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store

REAL = Path(os.environ.get("RELBUILD_REAL") or Path(__file__).parents[3] / "shared/real").absolute()


def real_folder(name: str) -> Path:
    """A folder of the real material. The test is skipped, by name, where it is absent."""
    found = REAL / name
    if not found.is_dir():
        pytest.skip(f"{found} is absent: set RELBUILD_REAL to the folder of real packages and keys")
    return found


@dataclass(frozen=True, slots=True)
class RealRecipes:
    """The recipes over real repositories, copied into `folder`; `build_env` has a store of its own."""

    folder: Path
    build_env: BuildEnvironment

    @property
    def repositories(self) -> Path:
        """The file of their platforms."""
        return self.folder / "repositories.yaml"

    def build(self, name: str, more: str = "", *, smoke: bool = True) -> BuildResult:
        """Build a recipe of the folder, with `more` lines at its end."""
        path = self.folder / f"{name}.yaml"
        path.write_text((REAL / "recipes" / path.name).read_text() + more)
        path.with_suffix(".lock").unlink(missing_ok=True)
        options = BuildOptions(path, self.repositories, output=self.folder / "output", smoke=smoke)
        return build(options, self.build_env)


def real_recipes(folder: Path) -> RealRecipes:
    """Copy the recipes and their platforms into `folder`."""
    shutil.copytree(real_folder("recipes"), folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    variables = {"HOME": str(Path.home()), "RELBUILD_REAL": str(REAL)}
    env = BuildEnvironment(Store.open(folder / "store"), QUIET, variables, time.time)
    return RealRecipes(folder / "recipes", env)
