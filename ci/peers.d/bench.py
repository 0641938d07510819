"""Unpacks the programs that ci/bench compares with and a machine may lack; see ci/peers.

Programs of a newer Debian are started by their own loader with their own libraries, from one folder of all.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from archive import ArchiveUnavailable
from closure import Unresolvable, close
from fetch import Packages

REQUESTS = ("dnf5", "rpm-common", "pigz", "isal")
ALONE = ("mkosi",)
"""Python that runs with the machine's own interpreter; what it depends on makes disk images, which nobody asks for."""
WITHOUT = frozenset({"adduser", "debconf", "dpkg", "gnupg", "libpam0g", "passwd", "perl", "perl:any", "rpm"})
PROGRAMS = {"dnf5": "usr/bin/dnf5", "pigz": "usr/bin/pigz", "igzip": "usr/bin/igzip"}
MKOSI = "usr/lib/python3/dist-packages/mkosi"


def starter(words: list[str | Path], environment: Mapping[str, str | Path]) -> str:
    """A script that starts a program in an environment with the script's arguments."""
    settings = [f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()]
    return "\n".join(["#!/bin/sh", *settings, f'exec {shlex.join(map(str, words))} "$@"', ""])


def main(folder: Path) -> None:
    """Fetch, unpack, put scripts that start the programs into `folder/bin`."""
    packages = Packages(folder)
    # dnf5 is in the later suite only: with all of its libraries from there, none is older than what it was linked with.
    later = packages.suites(("sid", "trixie"))
    root = folder / "root"
    alone = [later.offered(name)[0] for name in ALONE]
    packages.unpack([*close(later, REQUESTS, WITHOUT, frozenset()).values(), *alone], root)
    libraries = next(root.glob("usr/lib/*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*.so.*"))
    for name, path in PROGRAMS.items():
        if not (root / path).exists():
            raise ArchiveUnavailable(f"the packages have no {path}")
        write(
            folder / "bin" / name,
            starter(
                [loader, "--library-path", f"{libraries}:{root}/usr/lib", root / path],
                {"RPM_CONFIGDIR": root / "usr/lib/rpm"},
            ),
        )
    if not (root / MKOSI).is_dir():
        raise ArchiveUnavailable(f"mkosi has no {MKOSI}")
    write(
        folder / "bin" / "mkosi",
        starter(["/usr/bin/python3", "-m", "mkosi"], {"PYTHONPATH": (root / MKOSI).parent}),
    )
    (folder / "complete").touch()


def write(path: Path, script: str) -> None:
    """Write a script that can be started."""
    path.write_text(script)
    path.chmod(0o755)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (ArchiveUnavailable, Unresolvable) as error:
        sys.exit(f"ci/peers: {error}")
