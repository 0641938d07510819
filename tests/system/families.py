"""Recipes that are built from one another, in one folder and with one store."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.build import Built, build
from pipeline.gather import Order, Workshop
from pipeline.launch import unpacked
from pipeline.progress import QUIET
from tests.system.trees import Found, merged

NEVRA = "%{NEVRA}\n"


@dataclass(frozen=True)
class Family:
    """Recipes in one folder, built with one store."""

    folder: Path
    workshop: Workshop

    def write(self, name: str, text: str) -> Order:
        """A recipe, as an order to build it untested."""
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nversion: '1'\n{text}")
        return Order(path, self.folder / "repositories.yaml", smoke=False, output=self.folder / "output")

    def build(self, name: str, text: str) -> Built:
        """The same, built."""
        return build(self.write(name, text), self.workshop)

    def tree(self, built: Built) -> dict[str, Found]:
        """All that stands in an image."""
        return merged(unpacked(built.image, self.workshop.store, QUIET))


def unpack(built: Built, folder: Path) -> Path:
    """An image's root file system, as umoci unpacks it."""
    bundle = folder / built.image.digest.hex
    subprocess.run(["umoci", "unpack", "--image", f"{built.layout}:{built.image.reference}", bundle], check=True)
    return bundle / "rootfs"


def packages(built: Built) -> list[str]:
    """All packages of an image, as its report says."""
    report = json.loads((built.report_folder / "report.json").read_text())
    return sorted(package["nevra"] for package in report["packages"])


def lines(family: Family, built: Built, path: str) -> list[str]:
    """The lines of a file in the uppermost layer that has it."""
    for root in reversed(unpacked(built.image, family.workshop.store, QUIET)):
        if (root / path).exists():
            return (root / path).read_text().splitlines()
    raise AssertionError(path)
