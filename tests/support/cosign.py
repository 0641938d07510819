"""Two generations of cosign, run as docs/mirrors.md says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SMOKE, SPDX
from tests.support.foreign_programs import program
from tests.support.patience import HUNG
from tests.support.sites import PASSWORD

GENERATIONS = ("cosign", "cosign3")

TYPES = {"slsaprovenance1": PROVENANCE, "spdxjson": SPDX, "cyclonedx": CYCLONEDX, SMOKE: SMOKE}
"""As cosign calls it → predicate type."""


def cosign(generation: str, *words: str | Path, accepts: bool = True) -> str:
    """Run without a network: its home is empty, and what it asks for is on the loopback."""
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD, "COSIGN_YES": "true"}
    argv = [program(generation), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=HUNG, env=environment)
    assert (done.returncode == 0) is accepts, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout if accepts else done.stderr


def verification(keys: Path, generation: str, command: str, kind: str = "spdxjson", key: str = "ours") -> list[str]:
    """A command line of docs/mirrors.md, without the reference."""
    words = [command, "--key", str(keys / f"{key}.pub"), "--insecure-ignore-tlog=true"]
    if command == "verify-attestation":
        words += ["--type", kind]
        if generation == "cosign":
            words += ["--new-bundle-format", "--trusted-root", str(keys / "no-roots.json")]
    return words
