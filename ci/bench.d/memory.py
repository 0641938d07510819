"""Peak memory of builds, and how memory and time grow with packages and with bytes.

The peak of relbuild's own process, of its largest child, and of all processes at one moment: the resident pages that
the kernel counts (VmHWM, VmRSS), read every few milliseconds. What a file system in memory holds is not among them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from generated_packages import GeneratedRepository
from product import DEFAULT, Relbuild
from turns import MIB, MIRROR, OURS, ROOT, SAID, SHARE, BenchFailed, Goal, Section, Session, straight

PACKAGES = (100, 200, 400, 800)
SIZES = {"10 MB": 10 * 10**6, "100 MB": 100 * 10**6, "1 GB": 10**9, "4 GiB": 4 << 30}
PACKAGE_TURNS, LARGE_TURNS = 3, 1
"""At most, in which packages and large files are packed: one of 4 GiB takes a minute. Peaks are steady."""
ROOM = 12 << 30
"""Bytes on the disk: the large packages, in the store too, the layer and the tree of the largest."""
INTERVAL = 0.01
"""Seconds between two readings. A process's own peak is kept by the kernel, so only its last moment can be missed."""
CHILD, ALL = "its largest child", "all processes together"
PLATFORM = """
platforms:
  bench:
    description: generated packages on top of the development mirror
    architectures: [x86_64]
    repositories:
      - {{id: base, baseurls: ["file://{mirror}/base"], keys: ["{mirror}/RPM-GPG-KEY-local"]}}
      - {{id: generated, baseurls: ["file://{generated}"], keys: ["{generated}/key.asc"]}}
"""
RECIPE = """
name: {name}
version: "1"
platform: bench
architectures: [x86_64]
layers:
  - {{name: base, packages: [bash]}}
  - {{name: product, packages: [{name}]}}
image: {{entrypoint: [/bin/bash]}}
"""


@dataclass(slots=True)
class Peaks:
    """Peaks in KiB: by process of the children, by its number and command."""

    own: int = 0
    together: int = 0
    children: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def read(self, process: int) -> None:
        """Read those of a process and of all that descend from it."""
        total, command = 0, Path(f"/proc/{process}/cmdline").read_bytes()
        for number in _descendants(process):
            found = _memory(number)
            if found is None:
                continue
            name, peak, now = found
            if number == process:
                self.own = max(self.own, peak)
            elif name == command:
                continue  # Between fork and exec, with the pages of its parent.
            else:
                self.children[number, name] = max(peak, self.children.get((number, name), 0))
            total += now
        self.together = max(self.together, total)


def _descendants(process: int) -> list[int]:
    found = [process]
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _descendants(int(child))
    except OSError:
        pass  # It ended meanwhile.
    return found


def _memory(process: int) -> tuple[bytes, int, int] | None:
    """Return a process's command, peak and present memory in KiB; None if it ended or became another program."""
    folder = Path(f"/proc/{process}")
    try:
        name = (folder / "cmdline").read_bytes()
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        if name != (folder / "cmdline").read_bytes():
            return None
        return name, int(lines["VmHWM"].split()[0]), int(lines["VmRSS"].split()[0])
    except (OSError, KeyError):
        return None


def build(session: Session, what: str, recipe: Path) -> None:
    """Build a recipe from an empty store; note peaks and seconds under the name `what`."""
    folder = session.folder / "build"
    recipe.with_suffix(".lock").unlink(missing_ok=True)
    places: list[str | Path] = ["--store", folder / "store", "--output", folder / "output"]
    folder.mkdir()
    peaks = Peaks()

    def run() -> None:
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "build", recipe, "--no-smoke", *places, "--progress", "none"],
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=said, stderr=said,
            )  # fmt: skip
            while process.poll() is None:
                peaks.read(process.pid)
                time.sleep(INTERVAL)
        if process.returncode:
            raise BenchFailed(f"the build of {recipe.name} failed: {(folder / 'said').read_text()[-SAID:]}")

    session.take(OURS, f"{what}, build", run)
    for who, peak in ((OURS, peaks.own), (CHILD, max(peaks.children.values(), default=0)), (ALL, peaks.together)):
        session.record(who, f"{what}, peak", peak / 1024, MIB)
    shutil.rmtree(folder)


def recipes(folder: Path) -> dict[str, Path]:
    """Generate packages and recipes that install them; return the recipes by what is measured with them."""
    repository = GeneratedRepository(folder / "generated")
    repository.add_many(max(PACKAGES), PACKAGES)
    named = {f"{count} packages": f"first-{count}" for count in PACKAGES}
    for size, count in SIZES.items():
        named[f"a file of {size}"] = name = f"large-{size.replace(' ', '-').lower()}"
        repository.add_large(name, count)
    repository.finish()
    (folder / "repositories.yaml").write_text(PLATFORM.format(mirror=MIRROR, generated=repository.folder))
    for name in named.values():
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name))
    return {what: folder / f"{name}.yaml" for what, name in named.items()}


def measure(session: Session) -> None:
    """Build the product, packages by the hundred, and large files."""
    if shutil.disk_usage(session.folder).free < ROOM:
        raise BenchFailed(f"{session.folder} has less than {ROOM >> 30} GiB free")
    product = Relbuild(session.folder / "product", session.settings.get("product", DEFAULT))
    made = session.folder / "made"
    made.mkdir()
    generated = recipes(made)
    for turn in session.turns(warm_up=False):
        build(session, "product", product.recipe)
        for what, recipe in generated.items():
            if turn <= (LARGE_TURNS if what.startswith("a file") else PACKAGE_TURNS):
                build(session, what, recipe)
    most, largest = f"{max(PACKAGES)} packages", f"a file of {[*SIZES][-1]}"
    for name, what, goal in (
        (product.product, "product", 160),
        (most, most, 180),
        ("one file of 4 GiB", largest, 180),
    ):
        session.row(f"peak memory: {name}", session.of(OURS, f"{what}, peak"), Goal(goal), unit=MIB)
        session.row(f"peak memory: {name}, {ALL}", session.of(ALL, f"{what}, peak"), unit=MIB)
    _growth(session, "packages", {f"{count} packages": float(count) for count in PACKAGES})
    _growth(session, "MB", {f"a file of {size}": count / 1e6 for size, count in SIZES.items()})
    session.remark(
        "Peak memory is that of relbuild's own process. All its processes together, with runc and rpmdb for a moment, "
        "are in the line below it, where pages that they share count several times. Generated packages are built in "
        f"{PACKAGE_TURNS} turns at most, large files in {LARGE_TURNS}, without a turn that warms up."
    )


def _growth(session: Session, along: str, sizes: dict[str, float]) -> None:
    """Draw time and peak memory along packages or bytes, and say how far time is from a straight line."""
    seconds = [(size, min(session.of(OURS, f"{what}, build"))) for what, size in sizes.items()]
    memory = [(size, statistics.median(session.of(OURS, f"{what}, peak"))) for what, size in sizes.items()]
    session.curve(f"build in {along}", along, "s", seconds)
    session.curve(f"peak memory of a build in {along}", along, MIB, memory)
    session.row(f"build: farthest from a straight line in {along}", [straight(seconds).off], Goal(0.1), unit=SHARE)
    session.row(f"peak memory: growth with 100 {along}", [straight(memory).slope * 100], unit=MIB)


SECTIONS = (Section("memory", "Memory, and growth with packages and bytes", measure),)
