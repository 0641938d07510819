"""What the system tests share: the development mirror, one store, and products built once per session."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.sandbox import SandboxRegistry, find_runtime, open_sandbox_registry
from pipeline.store import Store
from tests.support.rpm_factory import Forge, forge
from tests.support.tiny_root import require_root

ROOT = Path(__file__).parents[2]
MIRROR = Path(
    os.environ.get("RELBUILD_MIRROR")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relbuild" / "mirror"
)
PRODUCTS = ("mysql", "nginx", "postgresql", "redis")
# Built, asked and built again like those; what takes long (peers, clients, rpm's own installation) is left out.
MORE_PRODUCTS = ("haproxy", "httpd", "mariadb", "memcached", "python", "valkey", "welcome")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The development mirror that `ci/mirror` made."""
    assert (MIRROR / "base" / "repodata" / "repomd.xml").exists(), f"no mirror in {MIRROR}: run ci/mirror"
    return MIRROR


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only root can enter, as a store is."""
    require_root()
    folder = tmp_path_factory.mktemp("store")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def sandboxes(closed: Path) -> SandboxRegistry:
    """Where a module's sandboxes are made."""
    return open_sandbox_registry(closed / "sandbox", find_runtime())


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product recipes, so that locks are not written into the checkout."""
    folder = tmp_path_factory.mktemp("catalogue")
    shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(ROOT / "templates", folder / "templates")
    return folder / "recipes"


@pytest.fixture(scope="session")
def build_env(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildEnvironment:
    """A store of the session's own. Where several processes run the tests it is theirs together, as it would be of as
    many builds, and what one has built is not built again by the others."""
    folder = tmp_path_factory.getbasetemp()
    return BuildEnvironment(
        store=Store.open((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store"),
        progress=QUIET,
        environment={"HOME": str(Path.home()), "RELBUILD_MIRROR": str(mirror)},
        clock=time.time,
    )


@pytest.fixture(scope="session")
def built(
    recipes: Path, build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], BuildResult]:
    """A product, built and tested the first time it is asked for."""
    output = tmp_path_factory.mktemp("output")
    made: dict[str, BuildResult] = {}

    def get(name: str) -> BuildResult:
        if name not in made:
            order = BuildOptions(recipes / f"{name}.yaml", recipes / "repositories.yaml", output=output)
            made[name] = build(order, build_env)
        return made[name]

    return get


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Makes RPMs of a test's own, signed by a throw-away key."""
    with forge(tmp_path_factory.mktemp("forge")) as it:
        yield it


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of the test's own."""
    return Store.open(tmp_path / "store")


@pytest.fixture(scope="module")
def three(made: Forge) -> list[Path]:
    """Three packages of some megabytes, in directories of their own."""
    return [
        made.package(
            name,
            install=f"mkdir -p usr/lib/{name}; seq 1 400000 >usr/lib/{name}/numbers; echo {name} >usr/lib/{name}/id",
            files=[f"/usr/lib/{name}"],
        )
        for name in ("one", "two", "three")
    ]
