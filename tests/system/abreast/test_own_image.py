"""relbuild builds and tests itself as an image, and builds from it what root builds there.

It takes a minute, and an RPM of the checkout: RELBUILD_SOAK=1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from tests.support.container_storage import container_storage
from tests.support.sampling import SOAK
from tests.support.source import ROOT
from tests.support.tiny_root import require_root

ENTITLED = ("--privileged", "--user", "0", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096")
"""Root with all capabilities: scriptlets run in containers of their own."""

DEFAULT = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""What podman gives by default: the image's user without capabilities, under podman's own filter. The limits are those
that a nested machine can set."""


@pytest.mark.skipif(not SOAK, reason="takes a minute, and makes an RPM of the checkout: RELBUILD_SOAK=1")
def test_relbuild_builds_from_its_own_image_with_any_privileges(tmp_path: Path) -> None:
    require_root()
    mirror = Path(os.environ["RELBUILD_MIRROR"])
    subprocess.run([ROOT / "ci" / "own-rpm", "--quiet", "--output", mirror], check=True)
    for folder in ("recipes", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.lock"))
    words = ["build", "recipes/relbuild.yaml", "--store", "store", "--progress", "plain"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=tmp_path,
        env={**environment, "RELBUILD_MIRROR": str(mirror)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0 and "passed in" in made.stderr, made.stderr
    tmp_path.chmod(0o755)
    (tmp_path / "recipes").chmod(0o777)  # Where locks are written; the user of the image is another one.
    digests = {}
    with container_storage() as call:
        for name, rights in (("default", DEFAULT), ("entitled", ENTITLED)):
            folders = ["--volume", f"{mirror}:/mirror:ro", "--volume", f"{tmp_path}:/work"]
            where = [*folders, "--env", "RELBUILD_MIRROR=/mirror"]
            order = ["build", "recipes/base.yaml", "--no-smoke", "--json", "--output", f"/tmp/{name}"]
            image = f"oci:{tmp_path}/output/relbuild:{pipeline.__version__}"
            said = call("podman", "run", "--rm", "--network", "none", *rights, *where, image, *order)
            digests[name] = next(line for line in said.splitlines() if '"digest": "sha256:' in line)
            (tmp_path / "recipes" / "base.lock").unlink()
    assert digests["default"] == digests["entitled"]
