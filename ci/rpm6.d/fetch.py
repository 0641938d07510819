"""Unpacks rpm of sid and its libraries into a folder; see ci/rpm6."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from archive import Archive, ArchiveUnavailable

PACKAGES = (
    "rpm",
    "rpm-common",
    "librpm10",
    "librpmio10",
    "librpm-sequoia-1",
    "libacl1",
    "libbz2-1.0",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgmp10",
    "libhogweed6t64",
    "liblua5.3-0",
    "liblzma5",
    "libnettle8t64",
    "libpopt0",
    "libsqlite3-0",
    "libstdc++6",
    "libzstd1",
    "zlib1g",
)


def main(folder: Path) -> None:
    """Fetch and unpack."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    home = folder.parent.parent / "peers" / "apt"  # ci/peers' lists of packages
    machine = os.uname().machine
    archive = Archive(home, folder.parent / "debs", {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))
    if "sid" not in archive.indexed_suites():
        archive.update(("trixie", "sid"))
    suites = archive.suites()
    wanted = [next(one for one in suites.offered(name) if one.suite == "sid") for name in PACKAGES]
    for path in archive.fetch(wanted).values():
        subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
    (folder / "complete").touch()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ArchiveUnavailable as error:
        sys.exit(f"ci/rpm6: {error}")
