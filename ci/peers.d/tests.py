"""Unpacks the programs that the tests of mirrors speak with; see ci/peers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from archive import ArchiveUnavailable
from fetch import Packages


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
    (folder / "complete").touch()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ArchiveUnavailable as error:
        sys.exit(f"ci/peers: {error}")
