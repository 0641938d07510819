"""A root file system of a product's packages by mkosi, against relbuild's image of them.

mkosi installs with dnf and knows Fedora's packages by name: the development mirror is given to it as a Fedora whose
base package, which the mirror lacks, is an empty one. It reads repositories over HTTP, because its sandbox does not see
the folder, and leaves a directory: with an image's format it would also make a tar and compress it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from product import DEFAULT, Relbuild, emptied
from turns import MIRROR, OURS, Section, Session, peer, run

from tests.support.rpm_factory import Forge, Signed

MKOSI, COLD = "mkosi (directory)", "cold build"
KEY = "RPM-GPG-KEY-local"
CONFIG = """
[Distribution]
Distribution=fedora
Release=43
Architecture=x86-64
[Output]
Format=directory
[Content]
Packages=%(packages)s
Bootable=no
WithDocs=no
"""
REPOSITORY = """
[%(name)s]
name=%(name)s
baseurl=http://127.0.0.1:%(port)s/%(name)s
gpgcheck=%(checked)s
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-43-primary
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder on the loopback for a block; yields the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def repositories(folder: Path) -> Path:
    """Make the folder that is served: both repositories of the mirror, and one of an empty `basesystem`."""
    (folder / "forge").mkdir()
    (folder / "www" / "own").mkdir(parents=True)
    package = Forge(folder / "forge", keys=False).package(
        "basesystem", header="Requires: filesystem", signed=Signed.NOT
    )
    shutil.copy(package, folder / "www" / "own")
    run("createrepo_c", "--quiet", folder / "www" / "own")
    for name in ("base", "updates"):
        (folder / "www" / name).symlink_to(MIRROR / name)
    return folder / "www"


def configured(folder: Path, packages: list[str], port: int) -> Path:
    """Write mkosi's configuration into a folder."""
    tree = folder / "mkosi.sandbox" / "etc"
    (tree / "yum.repos.d").mkdir(parents=True)
    (tree / "pki" / "rpm-gpg").mkdir(parents=True)
    shutil.copy(MIRROR / KEY, tree / "pki" / "rpm-gpg" / "RPM-GPG-KEY-fedora-43-primary")
    said = [REPOSITORY % {"name": n, "port": port, "checked": int(n != "own")} for n in ("base", "updates", "own")]
    (tree / "yum.repos.d" / "mkosi.repo").write_text("".join(said))
    (folder / "mkosi.conf").write_text(CONFIG % {"packages": ",".join(packages)})
    return folder


def measure(session: Session) -> None:
    """Make both in each turn."""
    mine, mkosi = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT)), peer("mkosi")
    with served(repositories(session.folder)) as port:
        for _ in session.turns():
            mine.forget()
            session.take(OURS, COLD, lambda: mine.build("--no-smoke"))
            with emptied(session.folder, "mkosi") as folder:
                configured(folder, mine.packages, port)
                session.take(MKOSI, COLD, lambda: run(mkosi, "--force", "build", cwd=folder, stdin=subprocess.DEVNULL))
                run("chmod", "-R", "u+w", folder)
    session.ratio("cold gzip: speed against mkosi's directory", (MKOSI, COLD), (OURS, COLD))
    session.remark(
        "mkosi leaves a directory: no layers, nothing compressed or hashed, no image. It fetches the same packages "
        "over HTTP from the loopback, checks their signatures, runs scriptlets and writes the RPM database."
    )


SECTIONS = (Section("mkosi", "A root file system by mkosi", measure),)
