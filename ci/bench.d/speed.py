"""One look at speed: a cold, an unchanged and a one-package build, against dnf into a buildah mount.

Everything is measured as a whole process, in turn, several times, in one run; the medians' ratios are what counts.
The peer does less (no lock, no verification of the result, no tests), so `relbuild --no-smoke` is compared, and the
smoke test is shown beside it. Works on tmpfs where there is one, because making inodes on a disk soon after removing
many is slow and noisy.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRROR = Path(
    os.environ.get("RELBUILD_MIRROR")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relbuild" / "mirror"
)
UPDATED = "tzdata"
"""The package that the one-package build changes: it is in every product's base and has an update."""


def run(*argv: str | Path, **more: object) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


class Relbuild:
    """relbuild with a store and a copy of the recipes of its own."""

    def __init__(self, folder: Path, product: str) -> None:
        self.folder, self.product = folder, product
        shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "templates")
        self.recipe = folder / "recipes" / f"{product}.yaml"
        self.plain = self.recipe.read_text()

    def build(self, *options: str) -> None:
        run(
            sys.executable, "-m", "pipeline", "build", self.recipe, "--store", self.folder / "store",
            "--output", self.folder / "output", "--progress", "none", *options,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def forget(self) -> None:
        for name in ("store", "output"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.recipe.with_suffix(".lock").unlink(missing_ok=True)

    def pin_old(self) -> None:
        old = run(
            "dnf", "repoquery", "--quiet", "--setopt=reposdir=/dev/null", f"--repofrompath=b,file://{MIRROR}/base",
            "--repo=b", "--queryformat=%{version}-%{release}", UPDATED,
        ).split()[-1]  # fmt: skip
        self.recipe.write_text(f'{self.plain}\npins: {{{UPDATED}: "{old}"}}\n')

    def unpin(self) -> None:
        self.recipe.write_text(self.plain)


def dnf_into_buildah(packages: list[str], folder: Path) -> None:
    """The peer: packages into a working container, committed as an OCI layout."""
    storage = ["--root", str(folder / "containers"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    container = run("buildah", *storage, "from", "scratch").strip()
    mounted = run("buildah", *storage, "mount", container).strip()
    run(
        "dnf", "-y", "--quiet", f"--installroot={mounted}", "--releasever=1", "--setopt=reposdir=/dev/null",
        f"--setopt=cachedir={folder}/dnf", "--setopt=install_weak_deps=0", "--setopt=best=1", "--setopt=keepcache=1",
        f"--repofrompath=base,file://{MIRROR}/base", f"--repofrompath=updates,file://{MIRROR}/updates",
        "--setopt=*.gpgcheck=1", f"--setopt=base.gpgkey=file://{MIRROR}/RPM-GPG-KEY-local",
        f"--setopt=updates.gpgkey=file://{MIRROR}/RPM-GPG-KEY-local", "install", *packages,
    )  # fmt: skip
    run("buildah", *storage, "umount", container)
    run("buildah", *storage, "commit", "--quiet", container, f"oci:{folder}/layout")
    run("buildah", *storage, "rm", container)


def timed(act: Callable[[], None]) -> float:
    started = time.monotonic()
    act()
    return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="ci/bench")
    parser.add_argument("product", nargs="?", default="mysql")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=base, prefix="relbuild-bench-") as name:
        folder = Path(name)
        (folder / "relbuild").mkdir()
        mine = Relbuild(folder / "relbuild", options.product)
        sys.path.insert(0, str(ROOT))
        from pipeline.recipes import load_recipe

        recipe = load_recipe(mine.recipe)
        packages = [request.text for layer in recipe.layers for request in layer.requests]
        for turn in range(options.runs + 1):
            kept: dict[str, float] = {}
            mine.forget()
            mine.pin_old()
            kept["cold"] = timed(lambda: mine.build("--no-smoke"))
            kept["unchanged"] = timed(lambda: mine.build("--no-smoke"))
            mine.unpin()
            kept["one package"] = timed(lambda: mine.build("--no-smoke"))
            kept["unchanged, tested again"] = timed(lambda: mine.build("--retest"))
            peer = folder / f"peer-{turn}"
            peer.mkdir()
            kept["dnf + buildah"] = timed(partial(dnf_into_buildah, packages, peer))
            run("chmod", "-R", "u+w", peer)
            shutil.rmtree(peer, ignore_errors=True)
            if turn:  # the first is the warm-up
                for what, seconds in kept.items():
                    figures.setdefault(what, []).append(seconds)
    peer_median = statistics.median(figures["dnf + buildah"])
    print(f"{options.product}: {options.runs} runs, seconds as min / median / max, ratio of medians to dnf + buildah")
    for what, seconds in figures.items():
        middle = statistics.median(seconds)
        print(f"  {what:<24} {min(seconds):6.2f} / {middle:6.2f} / {max(seconds):6.2f}   {middle / peer_median:5.2f}")


main()
