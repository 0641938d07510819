"""Other people's tools accept the image, unpack the same tree, and run it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.launch import unpack_layers
from pipeline.oci import validate_layout
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from tests.support.patience import HUNG
from tests.support.trees import differences, merged, read_tree
from tests.system.conftest import PRODUCTS

pytestmark = pytest.mark.long


def run(*argv: str | Path, timeout: float = HUNG) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """podman with a storage of its own."""
    folder = tmp_path_factory.mktemp("podman")
    with tempfile.TemporaryDirectory(prefix="podman-") as runroot:  # which may be 50 characters long

        def call(*argv: str | Path) -> str:
            return run(
                "podman", "--root", folder / "root", "--runroot", runroot, "--storage-driver", "vfs",
                "--runtime", "runc", "--cgroup-manager", "cgroupfs", *argv,
            )  # fmt: skip

        yield call
        call("rm", "--all", "--force", "--time", "1")
        call("rmi", "--all", "--force")


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_layout_is_valid_to_others_and_to_ourselves(product: str, built: Callable[[str], BuildResult]) -> None:
    layout = built(product).layout
    assert validate_layout(layout) == ()
    reference = built(product).image.reference
    run("oci-image-tool", "validate", "--type", "image", "--ref", f"name={reference}", layout)
    seen = json.loads(run("skopeo", "inspect", f"oci:{layout}:{reference}"))
    assert seen["Digest"] == str(built(product).image.digest)
    assert seen["Layers"] == [str(layer.blob.digest) for layer in built(product).image.layers]


@pytest.mark.parametrize("product", PRODUCTS)
def test_umoci_unpacks_the_same_tree(
    product: str, built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path: Path
) -> None:
    result = built(product)
    run("umoci", "unpack", "--image", f"{result.layout}:{result.image.reference}", tmp_path / "bundle")
    mine = merged(unpack_layers(result.image, build_env.store, QUIET))
    theirs = read_tree(tmp_path / "bundle" / "rootfs")
    assert list(map(str, differences(mine, theirs, ("relbuild", "umoci")))) == []


@pytest.mark.parametrize("product", PRODUCTS)
def test_podman_unpacks_the_same_tree(
    product: str, built: Callable[[str], BuildResult], build_env: BuildEnvironment, podman: Callable[..., str]
) -> None:
    result = built(product)
    podman("pull", "--quiet", f"oci:{result.layout}:{result.image.reference}")
    image = podman("images", "--quiet", "--no-trunc").split()[0]
    mounted = Path(podman("image", "mount", image).strip())
    mine = merged(unpack_layers(result.image, build_env.store, QUIET))
    theirs = read_tree(mounted)
    podman("image", "umount", image)
    podman("rmi", "--force", image)
    assert list(map(str, differences(mine, theirs, ("relbuild", "podman")))) == []


def test_podman_runs_it_and_mysqld_answers(built: Callable[[str], BuildResult], podman: Callable[..., str]) -> None:
    result = built("mysql")
    podman("pull", "--quiet", f"oci:{result.layout}:{result.image.reference}")
    image = podman("images", "--quiet", "--no-trunc").split()[0]
    container = podman(
        "run", "--detach", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", image
    ).strip()  # fmt: skip
    deadline = time.monotonic() + HUNG
    while True:
        try:
            answer = podman("exec", container, "mysql", "-uroot", "--batch", "--skip-column-names", "-e", "select 6*7")
            break
        except AssertionError:
            if time.monotonic() > deadline:
                pytest.fail(podman("logs", container))
            time.sleep(0.5)
    assert answer.strip() == "42"
    podman("stop", "--time", "30", container)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"
