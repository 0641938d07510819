"""Publishing an image to a fresh mirror and to one that has it, against `skopeo copy` of the same layout in one run.

To docker-registry on the loopback, each through a counter of what is sent, and to a directory, where skopeo's peers
are `dir:` (files by digest) and `oci:` (a layout). Whole processes, in turn; medians and their ratios count. relbuild
does more: it signs, attests, judges the evidence anew, reads back what it sent and writes the move of each tag down.
How many of its bytes are the image's own is told apart. Works on tmpfs where there is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.counting_proxy import counted_registry, stored
from tests.support.signing_examples import PRIVATE

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path) -> None:
    """A process to its end."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")


@dataclass(slots=True)
class Figures:
    """Seconds and bytes of each thing that is measured, by who did it and what."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    bytes: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, who: str, what: str, act: Callable[[], None], size: Callable[[], int]) -> None:
        """Do it, and note the time that it took and by how much `size` grew."""
        before, began = size(), time.monotonic()
        act()
        self.seconds[who, what].append(time.monotonic() - began)
        self.bytes[who, what].append(size() - before)

    def told(self, what: str, peer: str) -> str:
        """A line that compares relbuild with a peer; the first turn was the warm-up."""
        ours, theirs = (statistics.median(self.seconds[who, what][1:]) for who in ("relbuild", peer))
        own, other = self.bytes["relbuild", what][-1], self.bytes[peer, what][-1]
        share = f"{own / other:.3f}" if other else "-"
        return (
            f"  {what:<22} {ours:7.3f} s  {peer:<12} {theirs:7.3f} s  ratio {ours / theirs:5.2f}"
            f"   bytes {own:>11} / {other:>11}  ratio {share}"
        )


def on_disk(folder: Path) -> int:
    """Bytes of the files below a folder, each inode once."""
    seen = {}
    for path in folder.rglob("*") if folder.exists() else ():
        if path.is_file() and not path.is_symlink():
            found = path.stat()
            seen[found.st_ino] = found.st_size
    return sum(seen.values())


@dataclass(frozen=True, slots=True)
class Bench:
    """What is published, and from where."""

    folder: Path
    built: BuildResult
    build_env: BuildEnvironment
    figures: Figures = field(default_factory=Figures)

    def relbuild(self, to: str) -> None:
        run(
            sys.executable, "-m", "pipeline", "publish", self.built.layout, "--to", to, "--key", self.folder / "key",
            "--store", self.build_env.store.root, "--progress", "none",
        )  # fmt: skip

    def skopeo(self, target: str) -> None:
        source = f"oci:{self.built.layout}:{self.built.image.reference}"
        run("skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", source, target)

    def registries(self, turn: int) -> tuple[int, int]:
        """Two fresh registries, one for each; returns the bytes that relbuild's and skopeo's hold at the end."""
        ours, theirs = self.folder / f"ours-{turn}", self.folder / f"theirs-{turn}"
        name = self.built.image.name
        with counted_registry(ours) as (own, our_counter), counted_registry(theirs) as (other, their_counter):
            for what in ("registry, fresh", "registry, unchanged"):
                self.figures.take(
                    "relbuild", what, lambda: self.relbuild(f"registry+http://{own}/ns"), lambda: our_counter.sent
                )
                self.figures.take(
                    "skopeo",
                    what,
                    lambda: self.skopeo(f"docker://{other}/ns/{name}:latest"),
                    lambda: their_counter.sent,
                )
        held = sum(stored(ours).values()), sum(stored(theirs).values())
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
        return held

    def directories(self, turn: int) -> None:
        """A fresh directory for each."""
        names = {"relbuild": "mirror", "skopeo dir:": "files", "skopeo oci:": "layout"}
        places = {who: self.folder / f"{name}-{turn}" for who, name in names.items()}
        for what in ("directory, fresh", "directory, unchanged"):
            for who, place in places.items():
                target = f"dir:{place}" if who != "skopeo oci:" else f"oci:{place}:latest"
                act = self.relbuild if who == "relbuild" else self.skopeo
                self.figures.take(who, what, lambda: act(target), lambda: on_disk(place))  # noqa: B023
        for place in places.values():
            shutil.rmtree(place)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="ci/bench publish")
    parser.add_argument("product", nargs="?", default="mysql")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base, prefix="relbuild-bench-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "templates")
        (folder / "key").write_bytes(PRIVATE)
        (folder / "key").chmod(0o600)
        build_env = BuildEnvironment(Store.open(folder / "store"), QUIET, dict(os.environ), time.time)
        recipes = folder / "recipes"
        order = BuildOptions(
            recipes / f"{options.product}.yaml", recipes / "repositories.yaml", output=folder / "output"
        )
        built = build(order, build_env)
        if built.report is None or not built.report.passed:
            sys.exit(f"{options.product} did not pass its tests: {built.report and built.report.problems}")
        bench = Bench(folder, built, build_env)
        image = built.image
        own = sum(layer.blob.size for layer in image.layers) + len(image.config_bytes) + len(image.manifest_bytes)
        for turn in range(options.runs + 1):
            ours, theirs = bench.registries(turn)
            bench.directories(turn)
    print(f"{options.product}: {own} bytes of layers, config, manifest; {options.runs} runs, medians, whole processes")
    for what in ("registry, fresh", "registry, unchanged"):
        print(bench.figures.told(what, "skopeo"))
    for what in ("directory, fresh", "directory, unchanged"):
        for peer in ("skopeo dir:", "skopeo oci:"):
            print(bench.figures.told(what, peer))
    print("  bytes: sent over the wire with headers to registries, on the disk for directories (layers are links into")
    print(f"  the store there). The registries hold {ours} and {theirs} bytes: {ours - own} are signatures,")
    print(f"  attestations and records of moves, {theirs - own} what skopeo adds")


main()
