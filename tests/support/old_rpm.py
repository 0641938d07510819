"""rpm 4.16 of Debian 11, the last of Debian's whose rpm reads and writes Berkeley DB, as a package for an image.

Its packages are fetched once, from the archive that this machine's apt uses, and never installed here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.patience import HUNG
from tests.support.rpm_factory import Forge

_RPM, _LUA = "pool/main/r/rpm", "pool/main/l/lua5.2"
_VERSION = "4.16.1.2+dfsg1-3_amd64.deb"
PACKAGES = {
    f"{_RPM}/rpm_{_VERSION}": "854087b80c663be45434acca1eef451cfd3d16b420fa82997feaf5d6bb724a9e",
    f"{_RPM}/rpm-common_{_VERSION}": "de00823619f9e01404a7b94f7551bff7cc68e55d9e927d10aaa57e94cc1c1225",
    f"{_RPM}/librpm9_{_VERSION}": "26d093fc721bb669a4df4bcf34a8ca34424e6bd6b91d04e9a055092337a3665c",
    f"{_RPM}/librpmio9_{_VERSION}": "e7e604d2d88c303610ba548240da4e31bc71ee4c9491c7bb4bcd4dba37ae4342",
    f"{_LUA}/liblua5.2-0_5.2.4-1.1+b3_amd64.deb": "e0f2d054e44486b7e89203e5994efffbafa63b334f86709261c9e710be8ec129",
}
"""Files in Debian's pool, with their SHA-256."""

LIBRARIES = "libdb5.3 libpopt0 libgcrypt20 libsqlite3-0 libcap libzstd xz-libs bzip2-libs zlib"
"""What it needs besides, from the development mirror."""


def fetch_old_rpm() -> list[Path] | None:
    """Return the packages, from the cache or the archive; None where the archive does not have them any more."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relbuild" / "old-rpm"
    cache.mkdir(parents=True, exist_ok=True)
    found = [cache / Path(path).name for path in PACKAGES]
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    archive = listed.stdout.partition("\n")[0].rstrip("/")
    for (path, digest), place in zip(PACKAGES.items(), found, strict=True):
        if not _is(place, digest):
            command = ["/usr/lib/apt/apt-helper", "download-file", f"{archive}/{path}", place, f"SHA256:{digest}"]
            subprocess.run(command, capture_output=True, timeout=HUNG, check=False)
        if not _is(place, digest):
            return None
    return found


def _is(place: Path, digest: str) -> bool:
    return place.exists() and hashlib.sha256(place.read_bytes()).hexdigest() == digest


def package_of(debs: Sequence[Path], made: Forge, name: str) -> Path:
    """Make one RPM of the programs, libraries and configuration of those packages."""
    unpack = "\n".join(
        f"dpkg-deb --fsys-tarfile '{deb}' | tar -x --exclude ./usr/share --exclude ./etc" for deb in debs
    )
    return made.package(
        name,
        version="4.16.1.2",
        arch="x86_64",
        header=f"Requires: {LIBRARIES.replace(' ', ', ')}",
        install=f"{unpack}\nrm -rf var usr/lib/rpm/*/ usr/lib/x86_64-linux-gnu/rpm-plugins",
        files=["/usr/bin/*", "/usr/lib/rpm", "/usr/lib/x86_64-linux-gnu/*"],
    )
