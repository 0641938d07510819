"""The first night over the project's own catalogue against the second, in which nothing changed: whole processes, in
one run. The second must take at most a fiftieth, send nothing and leave every file of the mirror but the pages as it
is.

Says what each took; ends with 1 if that is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.oci import generate_key

ROOT = Path(__file__).parents[2]

MOST = 1 / 50
"""Of the first night, that the second may take."""

PASSWORD = "a password"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The recipes of this checkout, copied into `folder`, with a key, a store and a mirror that are new."""

    folder: Path

    def night(self) -> tuple[float, Any]:
        """One night: seconds, and what it says."""
        words = [
            "recipes",
            "--to",
            "dir:mirror",
            "--key",
            "night.key",
            "--store",
            "store",
            "--json",
            "--progress",
            "none",
        ]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "nightly", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "RELBUILD_KEY_PASSWORD": PASSWORD},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
        if done.returncode != 0:
            sys.exit(f"the night ended with {done.returncode}:\n{done.stderr}")
        return took, json.loads(done.stdout)

    def mirror(self) -> dict[str, int]:
        """Every file of the mirror but the pages, with its time of change."""
        root = self.folder / "mirror"
        return {
            str(path): path.lstat().st_mtime_ns
            for path in root.rglob("*")
            if not path.is_dir() and not path.is_relative_to(root / "nightly") and ".lock" not in path.parts
        }


def main() -> int:
    """Measure, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="second nights (default: 5); their median counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relbuild-nights-") as name:
        folder = Path(name)
        for part in ("recipes", "templates"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.lock"))
        (folder / "night.key").write_bytes(generate_key(PASSWORD.encode())[0])
        catalogue = Catalogue(folder)
        first, told = catalogue.night()
        before = catalogue.mirror()
        nights = [catalogue.night() for _ in range(options.runs)]
        second = statistics.median(took for took, _ in nights)
        sent = sum(product["uploaded"] for _, night in nights for product in night["products"])
        outcomes = {product["outcome"] for _, night in nights for product in night["products"]}
        same = catalogue.mirror() == before
    uploaded = sum(product["uploaded"] for product in told["products"])
    print(f"{len(told['products'])} products")
    print(f"  first night   {first:8.2f} s   {uploaded / 1e6:8.1f} MB uploaded")
    print(f"  second night  {second:8.2f} s   {sent / 1e6:8.1f} MB uploaded   1/{first / second:.0f} of the first")
    good = second <= first * MOST and sent == 0 and outcomes == {"unchanged"} and same
    print(f"  at most 1/{1 / MOST:.0f}, nothing sent, nothing changed: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
