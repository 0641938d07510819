"""The verdicts of rpm 6, from `ci/rpm6`."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from tests.support.foreign_programs import ROOT


@functools.cache
def _folder() -> Path:
    done = subprocess.run([ROOT / "ci" / "rpm6"], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def rpm6_accepts(path: Path, trusted: bytes, folder: Path) -> bool:
    """The verdict on a package with the keys of a file and no others, at the level that demands signatures."""
    root = _folder()
    libraries = root / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    ring, key = folder / "keyring-6", folder / "trusted-6"
    ring.mkdir()
    key.write_bytes(trusted)
    loader = next(libraries.glob("ld-linux-*.so.*"))
    command = [loader, "--library-path", libraries, root / "usr/bin/rpmkeys", "--dbpath", folder / "database-6"]
    for name, value in {"_keyring": "fs", "_keyringpath": f"{ring}/", "_pkgverify_level": "signature"}.items():
        command += ["--define", f"{name} {value}"]
    environment = {"RPM_CONFIGDIR": str(root / "usr/lib/rpm"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    # It says of some keys in a file that it does not take them, and ends with 1; the others are imported.
    subprocess.run([*command, "--import", key], env=environment, capture_output=True, check=False)
    done = subprocess.run([*command, "-K", path], env=environment, capture_output=True, check=False)
    assert str(path).encode() in done.stdout, done.stderr
    return done.returncode == 0
