"""Unpacks programs from Debian's packages into a folder; see ci/peers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from archive import Archive, ArchiveUnavailable


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
    shutil.rmtree(folder, ignore_errors=True)
    archive = Archive(folder.parent / "apt", folder.parent / "debs")
    archive.update(("trixie", "sid"))
    suites = archive.suites()
    (folder / "bin").mkdir(parents=True)
    for suite in ("trixie", "sid"):
        wanted = {
            peer.package: next(one for one in suites.offered(peer.package) if one.suite == suite)
            for peer in PEERS
            if peer.suite == suite
        }
        files = archive.fetch(wanted.values())
        for peer in PEERS:
            if peer.suite != suite:
                continue
            place = folder / suite / peer.package
            if not place.exists():
                place.parent.mkdir(exist_ok=True)
                subprocess.run(["dpkg-deb", "-x", files[peer.package], place], check=True)
            program = place / peer.path
            if not program.exists():
                raise ArchiveUnavailable(f"{peer.package} of {suite} has no {peer.path}")
            (folder / "bin" / peer.name).symlink_to(program)
    (folder / "complete").touch()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ArchiveUnavailable as error:
        sys.exit(f"ci/peers: {error}")
