"""Built without any privilege, as in a Kubernetes pod, an image has the digest that it has when root builds it.

`tests/support/without_privileges.py` is the pod: another user (or root without capabilities), and a filter that refuses
namespaces and mounts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.build import build
from pipeline.prepare import BuildEnvironment, BuildOptions
from tests.support.patience import HUNG
from tests.support.sampling import SOAK
from tests.support.tiny_root import require_root
from tests.system.conftest import MORE_PRODUCTS, PRODUCTS, ROOT

NOBODY = 65534
PROGRAM = ROOT / "tests/support/without_privileges.py"

HARD = """
name: hard
version: "1"
platform: local
architectures: [x86_64]
layers:
  - {name: base, packages: [setup, filesystem, glibc, bash, coreutils, shadow-utils], without: [docs, man]}
  - name: cases
    packages: [hardcase-scriptlets, hardcase-lua, hardcase-hardlinks, hardcase-config, hardcase-account, hardcase-modes,
      hardcase-sysusers, hardcase-symlinks]
accounts: {users: [{name: me, uid: 77}]}
files:
  - {content: secret, path: /etc/deep/down/key, mode: "0640", group: me}
  - {directory: /srv/data, mode: "1770", owner: me}
  - {symlink: ../deep/down/key, path: /etc/link}
remove: [/usr/bin/sha512sum]
image: {entrypoint: [/bin/sleep, "60"]}
"""
"""Every kind of scriptlet, in shell and Lua; hard links, capabilities, owners; each kind of file of a recipe."""

MOUNT = 'mount --bind "$1" "$2"; mount --bind "$3" "$4"; shift 4; exec "$@"'
"""In a mount namespace of root's: libraries and mirror are in its home."""

MOUNT_READ_ONLY = (
    'mount --bind "$1" "$2"; mount --bind "$3" "$4"; mount --bind "$5" "$5"; mount -o remount,bind,ro /; '
    'cd /; shift 5; exec "$@"'
)
"""The same with a read-only root file system, its /tmp and the working directory included: only the volume can be
written to."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A folder of the user `uid`, with relbuild's code and the recipes, and who builds there."""

    folder: Path
    uid: int
    mirror: Path

    def relbuild(self, *argv: str | Path, volume: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command; with a `volume`, the root file system and the home are read-only."""
        libraries, packages = self.folder / "libraries", self.folder / "packages"
        return subprocess.run(
            [
                *("unshare", "-m", "sh", "-ec", MOUNT_READ_ONLY if volume else MOUNT, "-"),
                *(sysconfig.get_path("purelib"), libraries, self.mirror, packages),
                *((volume,) if volume else ()),
                *("/usr/bin/python3", self.folder / "without_privileges.py", str(self.uid)),
                *("/usr/bin/python3", "-m", "pipeline", *argv, "--json"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/" if volume else str(self.folder / "home"),
                "PYTHONPATH": f"{self.folder}/code:{libraries}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "RELBUILD_MIRROR": str(packages),
            },
            cwd=self.folder / "home",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def digest(self, recipe: str) -> str:
        """Build a recipe without testing it, and return the manifest's digest."""
        done = self.relbuild("build", self.folder / "home/recipes" / f"{recipe}.yaml", "--no-smoke")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["built"][0]["digest"])


@pytest.fixture(scope="module", params=[NOBODY, 0], ids=["nobody", "root without capabilities"])
def pod(request: pytest.FixtureRequest, mirror: Path) -> Iterator[Pod]:
    require_root("become another user")
    # Not pytest's folder: another user has to be able to walk here.
    with tempfile.TemporaryDirectory(prefix="relbuild-pod-", dir="/var/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in ("libraries", "packages", "home"):
            (folder / name).mkdir()
        shutil.copytree(ROOT / "pipeline", folder / "code/pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROGRAM, folder)
        shutil.copytree(ROOT / "recipes", folder / "home/recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "home/templates")
        (folder / "home/recipes/hard.yaml").write_text(HARD)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        subprocess.run(["chown", "-R", f"{request.param}:{request.param}", folder / "home"], check=True)
        yield Pod(folder, request.param, mirror)


def digest_of_root(recipes: Path, recipe: str, build_env: BuildEnvironment, output: Path) -> str:
    options = BuildOptions(recipes / f"{recipe}.yaml", recipes / "repositories.yaml", smoke=False, output=output)
    return str(build(options, build_env).image.digest)


def test_images_have_the_digests_of_root(pod: Pod, recipes: Path, build_env: BuildEnvironment, tmp_path: Path) -> None:
    """Every kind of scriptlet by nobody, redis by root without capabilities; all products with RELBUILD_SOAK."""
    (recipes / "hard.yaml").write_text(HARD)
    everything = ("hard", "base", *PRODUCTS, *MORE_PRODUCTS)
    for name in everything if SOAK else ("hard",) if pod.uid else ("redis",):
        digest = pod.digest(name)
        assert digest == digest_of_root(recipes, name, build_env, tmp_path), name
        if name == "redis":
            assert digest_with_evidence(pod, name, tmp_path) == digest


def digest_with_evidence(pod: Pod, name: str, tmp_path: Path) -> str:
    """The digest for which root has evidence, who tests what was built there without the store of who built."""
    home = pod.folder / "home"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline", "smoke", home / f"recipes/{name}.yaml"),
            *("--output", home / "output", "--store", tmp_path / "elsewhere", "--json"),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads((home / f"output/{name}.report/evidence.json").read_text())["image"])


@pytest.mark.parametrize("pod", [NOBODY], ids=["nobody"], indirect=True)
def test_with_a_read_only_root_file_system_and_home_a_volume_is_enough(
    pod: Pod, recipes: Path, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    """As a pod with `readOnlyRootFilesystem`, HOME=/ and an emptyDir: no /tmp and no cache directory to write in."""
    work = pod.folder / "home"
    words = ("build", work / "recipes/hard.yaml", "--no-smoke", "--output", work / "volume/output")
    refused = pod.relbuild(*words, volume=work)
    (problem,) = json.loads(refused.stdout)["error"]
    assert refused.returncode == 8 and problem["code"] == "read-only" and "--store" in problem["hint"], refused.stderr
    done = pod.relbuild(*words, "--store", work / "volume/store", volume=work)
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["built"]
    (recipes / "hard.yaml").write_text(HARD)
    assert made["digest"] == digest_of_root(recipes, "hard", build_env, tmp_path)


def test_a_build_that_cannot_be_tested_is_refused_before_it_begins(pod: Pod) -> None:
    refused = pod.relbuild("build", pod.folder / "home/recipes/hard.yaml")
    assert refused.returncode == 8
    (problem,) = json.loads(refused.stdout)["error"]
    assert (
        problem["code"] == "root-needed"
        and "--no-smoke" in problem["hint"]
        and "relbuild smoke RECIPE" in problem["hint"]
    )


def test_the_doctor_says_which_way_there_is(pod: Pod) -> None:
    done = pod.relbuild("doctor")
    findings = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 8 and not findings["privileges"]["ok"]
    assert "--no-smoke" in findings["privileges"]["detail"] and findings["traced scriptlets"]["ok"], findings
