"""Unpacks the programs that the tests of mirrors speak with; see ci/peers.

One that wants a newer C library than the machine may have is started by its own loader with its own libraries.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from archive import ArchiveUnavailable
from bench import starter, write
from closure import Unresolvable, close
from fetch import SUITES, Packages


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of a package of a suite, and what it is called here."""

    package: str
    suite: str
    path: str
    name: str


PEERS = (
    Peer("docker-registry", "trixie", "usr/bin/docker-registry", "docker-registry"),
    Peer("nginx", "trixie", "usr/sbin/nginx", "nginx"),
    Peer("cosign", "trixie", "usr/bin/cosign", "cosign"),
    Peer("oras", "trixie", "usr/bin/oras", "oras"),
    Peer("cosign", "sid", "usr/bin/cosign", "cosign3"),
    Peer("crane", "sid", "usr/bin/crane", "crane"),
)
SKOPEO = Peer("skopeo", "sid", "usr/bin/skopeo", "skopeo")
"""It verifies sigstore's signatures, which that of Debian 12 is built without."""
WITHOUT = frozenset({"golang-github-containers-common", "gnupg"})
"""What skopeo depends on and is not asked for: a test gives it its own policy, without OpenPGP."""


def main(folder: Path) -> None:
    """Fetch, unpack, put into `folder/bin`."""
    packages = Packages(folder)
    suites = packages.suites()
    for peer in PEERS:
        place = folder / peer.suite / peer.package
        wanted = next(one for one in suites.offered(peer.package) if one.suite == peer.suite)
        packages.unpack([wanted], place)
        program = place / peer.path
        if not program.exists():
            raise ArchiveUnavailable(f"{peer.package} of {peer.suite} has no {peer.path}")
        (folder / "bin" / peer.name).symlink_to(program)
    unpack_with_libraries(SKOPEO, packages, folder)
    (folder / "complete").touch()


def unpack_with_libraries(peer: Peer, packages: Packages, folder: Path) -> None:
    """Unpack a program and all libraries that it needs from its suite, and write what starts it."""
    root = folder / peer.suite / f"{peer.package}-root"
    offered = packages.suites((peer.suite, *(suite for suite in SUITES if suite != peer.suite)))
    packages.unpack(close(offered, (peer.package,), WITHOUT, frozenset()).values(), root)
    program, libraries = root / peer.path, next(root.glob("usr/lib/*-linux-gnu"))
    if not program.exists():
        raise ArchiveUnavailable(f"{peer.package} of {peer.suite} has no {peer.path}")
    loader = next(libraries.glob("ld-linux-*.so.*"))
    write(folder / "bin" / peer.name, starter([loader, "--library-path", libraries, program], {}))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (ArchiveUnavailable, Unresolvable) as error:
        sys.exit(f"ci/peers: {error}")
