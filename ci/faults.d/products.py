"""Products to build, as small as they can be: two signed packages with a static program, a scriptlet, and one check."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.product_builds import signed_repository
from tests.support.rpm_factory import Forge

_RECIPE = """
name: %(name)s
version: "%(version)s"
platform: small
layers:
  - {name: base, packages: [small-base]}
  - {name: product, packages: [small]}
files:
  - {content: "%(version)s", path: /etc/version, mode: "0644"}
image:
  entrypoint: [/usr/bin/small]
  labels: {org.opencontainers.image.licenses: MIT, made.for: "%(label)s"}
smoke:
  limits: {memory: 64MiB, pids: 20}
  ready: {log: ready, within: 20s}
  checks:
    - {name: %(check)s, file: {path: /usr/lib/small/post, text: made by %%post}}
"""


def recipe(
    folder: Path, name: str, version: str = "1.0", *, label: str = "faults", check: str = "ran its scriptlet"
) -> None:
    """Write a product's recipe. `label` is a label of its image, and no more; `check` is what its check is called."""
    words = {"name": name, "version": version, "label": label, "check": check}
    (folder / f"{name}.yaml").write_text(_RECIPE % words)


def repository(folder: Path, forge: Forge) -> str:
    """Make the repository that they are made from; what `repositories.yaml` says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "small"
    source = Path(__file__).with_name("product.c")
    options = ["-Os", "-static", "-nostdlib", "-fno-stack-protector", "-fno-pie", "-no-pie", "-s"]
    subprocess.run(["gcc", *options, "-o", program, source], check=True)
    base = forge.package(
        "small-base",
        install="mkdir -p etc usr/lib tmp run var dev proc sys; seq 1 2000 >usr/lib/numbers",
        files=["/etc", "/usr/lib/numbers"],
    )
    small = forge.package(
        "small",
        arch="x86_64",
        header="Requires: small-base",
        install=f"mkdir -p usr/bin usr/lib/small; cp {program} usr/bin/small; chmod 755 usr/bin/small",
        files=["/usr/bin/small", "/usr/lib/small"],
        sections="%post -p /usr/bin/small\nleave a file",
    )
    program.unlink()
    return signed_repository(folder, forge.key, base, small)
