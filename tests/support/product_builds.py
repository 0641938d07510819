"""Small products, really built, really tested: one signed package with a static program, and a file that differs from
version to version. A version takes a fraction of a second, so that tests of mirrors can have many."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.rpm_factory import Forge

_PLATFORMS = """
platforms:
  small:
    architectures: [x86_64]
    repositories:
      - {id: small, baseurls: ["file://%(folder)s/repository"], keys: ["%(folder)s/key"]}
"""

RECIPE = """
name: %(name)s
version: "%(version)s"
platform: small
architectures: [x86_64]
layers:
  - {name: base, packages: [small-base]}
  - {name: product, packages: [small]}
files:
  - {content: "%(version)s %(note)s", path: /etc/version, mode: "%(mode)s"}
image:
  entrypoint: [/usr/bin/busybox, sh, -c, "trap 'exit 0' TERM; /usr/bin/busybox httpd -f -p 8080 -h /etc & wait"]
  exposed_ports: [8080]
  labels: {org.opencontainers.image.licenses: MIT}
smoke:
  limits: {memory: 64MiB, pids: 20}
  ready: {port: 8080, within: 20s}
  checks:
    - {name: says its version, within: 3s, http: {port: 8080, path: /version}, expect: {body: "%(expected)s"}}
    - {name: is what it says, file: {path: /etc/version, text: "%(version)s"}}
"""


@dataclass(frozen=True, slots=True)
class SmallProducts:
    """Builds versions of small products in `folder`. `build_env` has a store of its own."""

    folder: Path
    build_env: BuildEnvironment

    def build(
        self,
        version: str,
        *,
        name: str = "small",
        note: str = "",
        expected: str = "",
        output: str = "output",
        mode: str = "0644",
    ) -> BuildResult:
        """A version of a product, built and tested; `expected`: what its check wants it to say (default: the truth);
        `mode`: of /etc/version."""
        place = self.folder / f"{name}.yaml"
        expected = expected or version.replace(".", "\\\\.")
        words = {"name": name, "version": version, "note": note, "expected": expected, "mode": mode}
        place.write_text(RECIPE % words)
        order = BuildOptions(place, self.folder / "repositories.yaml", output=self.folder / output / version)
        return build(order, self.build_env)


def signed_repository(folder: Path, key: bytes, *packages: Path) -> str:
    """A repository of packages that this key signed; what `repositories.yaml` says of it, as the platform `small`."""
    repository = folder / "repository"
    repository.mkdir(parents=True)
    for package in packages:
        shutil.copy(package, repository)
    subprocess.run(["createrepo_c", "--quiet", repository], check=True)
    (folder / "key").write_bytes(key)
    return _PLATFORMS % {"folder": folder}


def small_products(folder: Path, forge: Forge) -> SmallProducts:
    """A signed repository with two packages, and where products are built from it."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is missing: ci/setup test installs busybox-static"
    base = forge.package(
        "small-base",
        install="mkdir -p etc usr/lib tmp run var dev proc sys; echo base >usr/lib/base; seq 1 60000 >usr/lib/numbers",
        files=["/etc", "/usr/lib/base", "/usr/lib/numbers"],
    )
    small = forge.package(
        "small",
        arch="x86_64",
        header="Requires: small-base",
        install=f"mkdir -p usr/bin; cp {busybox} usr/bin/busybox; chmod 755 usr/bin/busybox",
        files=["/usr/bin/busybox"],
    )
    (folder / "repositories.yaml").write_text(signed_repository(folder, forge.key, base, small))
    store = folder / "store"
    store.mkdir(mode=0o700)
    build_env = BuildEnvironment(Store.open(store), QUIET, {"HOME": str(folder)}, time.time)
    return SmallProducts(folder, build_env)
