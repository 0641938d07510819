"""Recipes that are built from one another, in one folder and with one store."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.build import BuildResult, build
from pipeline.launch import unpack_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.trees import Found, merged

NEVRA = "%{NEVRA}\n"


@dataclass(frozen=True)
class Family:
    """Recipes in one folder, built with one store."""

    folder: Path
    build_env: BuildEnvironment

    def write(self, name: str, text: str) -> BuildOptions:
        """A recipe, as an order to build it untested."""
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nversion: '1'\n{text}")
        return BuildOptions(path, self.folder / "repositories.yaml", smoke=False, output=self.folder / "output")

    def build(self, name: str, text: str) -> BuildResult:
        """The same, built."""
        return build(self.write(name, text), self.build_env)

    def tree(self, built: BuildResult) -> dict[str, Found]:
        """All that stands in an image."""
        return merged(unpack_layers(built.image, self.build_env.store, QUIET))


def unpack(built: BuildResult, folder: Path) -> Path:
    """An image's root file system, as umoci unpacks it."""
    bundle = folder / built.image.digest.hex
    subprocess.run(["umoci", "unpack", "--image", f"{built.layout}:{built.image.reference}", bundle], check=True)
    return bundle / "rootfs"


def packages(built: BuildResult) -> list[str]:
    """All packages of an image, as its report says."""
    report = json.loads((built.report_folder / "report.json").read_text())
    return sorted(package["nevra"] for package in report["packages"])


def lines(family: Family, built: BuildResult, path: str) -> list[str]:
    """The lines of a file in the uppermost layer that has it."""
    for root in reversed(unpack_layers(built.image, family.build_env.store, QUIET)):
        if (root / path).exists():
            return (root / path).read_text().splitlines()
    raise AssertionError(path)
