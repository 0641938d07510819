"""Making layers of real packages, and having rpm install the same ones, to compare."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.compression import Compression
from pipeline.digest import digest_file
from pipeline.layers import build_layer, unpack_to_store
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.image import Layer
from pipeline.model.recipe import Group, User
from pipeline.packages import read_header
from pipeline.store import Store
from pipeline.trees import ComposeOptions, Composition, compose
from tests.support.patience import HUNG
from tests.support.trees import Found, differences, read_tree

SETUP = Path(__file__).parents[2] / "ci" / "mirror.d" / "setup"
DATABASE = ".database"
SEEDED = ("etc", "etc/passwd", "etc/group", "etc/passwd.rpmnew", "etc/group.rpmnew", DATABASE, "var/tmp", "var")
"""What the comparison's own preparation leaves in rpm's tree."""


def accounts() -> AccountTable:
    """The mirror's own accounts and those that its packages add."""
    users = [line.split(":") for line in (SETUP / "passwd").read_text().splitlines()]
    groups = [line.split(":") for line in (SETUP / "group").read_text().splitlines()]
    more = (("mysql", 27), ("postgres", 26), ("nginx", 999), ("redis", 998))
    return AccountTable(
        users=tuple(User(user[0], int(user[2]), int(user[3])) for user in users)
        + tuple(User(name, number, number) for name, number in more),
        groups=tuple(Group(group[0], int(group[2])) for group in groups)
        + tuple(Group(name, number) for name, number in more),
    )


def headers(packages: Sequence[Path], store: Store) -> list[PackageHeader]:
    """The packages' headers, the packages in the store."""
    found = []
    for package in packages:
        checksum = digest_file(package)
        if not store.has(checksum):
            shutil.copy(package, store.blob(checksum))
        found.append(read_header(package, checksum))
    return found


def composed(packages: Sequence[Path], store: Store, options: ComposeOptions | None = None) -> Composition:
    """One layer of packages, composed."""
    return compose([("all", headers(packages, store))], accounts(), options or ComposeOptions())


def layered(
    packages: Sequence[Path],
    store: Store,
    options: ComposeOptions | None = None,
    compression: Compression = Compression.GZIP,
) -> Layer:
    """One layer of packages, made."""
    (layer,) = composed(packages, store, options).layers
    return build_layer(layer, store=store, compression=compression).layer


def installed(packages: Sequence[Path], root: Path, *options: str) -> dict[str, Found]:
    """What rpm makes of the same packages with the same accounts."""
    (root / "etc").mkdir(parents=True)
    table = accounts()
    (root / "etc/passwd").write_text(
        "".join(f"{user.name}:x:{user.uid}:{user.gid}::/:/bin/sh\n" for user in table.users)
    )
    (root / "etc/group").write_text("".join(f"{group.name}:x:{group.gid}:\n" for group in table.groups))
    done = subprocess.run(
        [
            *("rpm", "--root", root, "--dbpath", f"/{DATABASE}", "-i", "--nosignature", "--nodigest"),
            *("--nodeps", "--noscripts", "--notriggers", *options, *packages),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    tree = read_tree(root)
    return {path: found for path, found in tree.items() if path not in SEEDED and not path.startswith(DATABASE)}


def comparable(tree: dict[str, Found]) -> dict[str, Found]:
    """rpm gives a directory the time of its package, a layer that of its newest package; both are free to."""
    return {
        path: replace(found, mtime=0) if found.kind == "d" else found
        for path, found in tree.items()
        if path not in SEEDED
    }


def assert_as_rpm_installs(
    packages: Sequence[Path],
    store: Store,
    tmp_path: Path,
    *,
    options: ComposeOptions | None = None,
    rpm: Sequence[str] = (),
    only_rpms: Sequence[str] = (),
) -> dict[str, Found]:
    """`only_rpms`: paths that rpm makes and a layer rightly does not have."""
    ours = read_tree(unpack_to_store(layered(packages, store, options), store=store))
    theirs = comparable(installed(packages, tmp_path / "rpm", *rpm))
    for path in only_rpms:
        del theirs[path]
    assert differences(comparable(ours), theirs, ("the layer", "rpm's tree")) == []
    return ours


def of_mirror(mirror: Path, *names: str) -> list[Path]:
    """Packages of the mirror by name, the newest of each."""
    found = []
    for name in names:
        (package,) = (mirror / "base").glob(f"{name}-1.0-1.*.rpm")
        found.append(package)
    return found
