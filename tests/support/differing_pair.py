"""Two versions of a product that differ in all that images can differ in."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildOptions
from pipeline.resolve import LockMode
from tests.support.product_builds import SmallProducts, small_products
from tests.support.rpm_factory import Forge
from tests.support.sites import relbuild

PROGRAM = "[/usr/bin/busybox, sh, -c, \"trap 'exit 0' TERM; echo up; while :; do sleep 1; done & wait\"]"

RECIPE = """
name: thing
version: "{{ packages['thing'].version }}"
platform: small
layers:
  - {name: base, packages: [small-base]}
  - {name: product, packages: [small, %(packages)s]}
files:
  - {content: "%(note)s", path: /etc/note, mode: "%(mode)s"}
image:
  entrypoint: %(program)s
  environment: {KEPT: same, %(environment)s}
  exposed_ports: [%(ports)s]
  labels: {note: "%(note)s"}
smoke: {ready: {log: up, within: 20s}, checks: [{name: has it, file: {path: /usr/lib/thing/kept}}]}
"""

FIRST = "* Mon Mar 02 2026 Somebody <s@example.invalid> - 1-1\n- first\n"
SECOND = (
    "* Tue Mar 03 2026 Somebody <s@example.invalid> - 2-1\n- second, closes CVE-2026-12345\n"
    "* Tue Mar 03 2026 Somebody <s@example.invalid> - 1.5-1\n- between\n"
)

OLD_FILES = """
mkdir -p usr/lib/thing/gone/deep usr/lib/thing/turned; cd usr/lib/thing
echo kept >kept; echo old >content; echo mode >mode; chmod 644 mode; echo owner >owner; echo gone >gone/deep/file
ln -s kept link; echo linked >first; ln first second; echo was a directory >turned/file; echo cap >capable
echo alike >alike-one; echo alike >alike-two
"""
NEW_FILES = """
mkdir -p usr/lib/thing/come; cd usr/lib/thing
echo kept >kept; echo new >content; echo mode >mode; chmod 4755 mode; echo owner >owner; echo come >come/file
ln -s content link; echo linked anew >first; ln first second; echo a file now >turned; echo cap >capable
echo alike >alike-one; ln alike-one alike-two
printf 'umlaut' >"$(printf 'f\\303\\274r')"
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a product, and where relbuild runs to compare them."""

    old: BuildResult
    new: BuildResult
    small: SmallProducts

    def diff(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """The command with this store."""
        return relbuild(self.small.folder, "diff", *words, "--store", self.small.build_env.store.root)

    def told(self, *words: str | Path) -> dict[str, Any]:
        """What it says of the only image."""
        done = self.diff(*words, "--json", "--progress", "none")
        assert done.returncode == 0, done.stderr
        (image,) = json.loads(done.stdout)["images"]
        return dict(image)


def differing_pair(folder: Path, made: Forge) -> Pair:
    """A package with a changelog, in two versions that differ in every way that files can."""
    small = small_products(folder, made)

    def offer(*packages: Path) -> None:
        for package in packages:
            shutil.copy(package, small.folder / "repository")
        subprocess.run(["createrepo_c", "--quiet", small.folder / "repository"], check=True)

    def version(number: int, **words: str) -> BuildResult:
        recipe = small.folder / "thing.yaml"
        recipe.write_text(RECIPE % {"program": PROGRAM, **words})
        order = BuildOptions(
            recipe,
            small.folder / "repositories.yaml",
            mode=LockMode.UPGRADE,
            output=small.folder / "output" / str(number),
        )
        return build(order, small.build_env)

    offer(
        made.package(
            "thing",
            install=OLD_FILES,
            files=["/usr/lib/thing", "%attr(644, root, root) /usr/lib/thing/owner"],
            sections=f"%changelog\n{FIRST}",
        ),
        made.package("retired", install="mkdir -p opt; echo >opt/retired", files=["/opt/retired"]),
    )
    old = version(
        1, packages="thing, retired", note="old", mode="0644", environment="GONE: x, OTHER: a", ports="80, 81"
    )
    while time.time() < old.image.config.created + 1:
        time.sleep(0.05)  # The other version's package is made in a later second.
    offer(
        made.package(
            "thing",
            version="2",
            install=NEW_FILES,
            files=[
                "/usr/lib/thing",
                "%attr(644, daemon, daemon) /usr/lib/thing/owner",
                "%caps(cap_net_raw=ep) /usr/lib/thing/capable",
            ],
            header="Provides: user(daemon)\nProvides: group(daemon)",
            sections=f"%changelog\n{SECOND}{FIRST}",
        ),
        made.package("arrived", install="mkdir -p opt; echo >opt/arrived", files=["/opt/arrived"]),
    )
    new = version(2, packages="thing, arrived", note="new", mode="0600", environment="COME: x, OTHER: b", ports="80")
    return Pair(old, new, small)
