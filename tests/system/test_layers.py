"""Layers against rpm itself: what comes out of a layer is what `rpm -i` puts on a disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import DiffId, digest_file
from pipeline.errors import RelbuildError
from pipeline.layers import build_layer, pack_directory, unpack
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.image import Compression, Layer
from pipeline.model.recipe import Group, User
from pipeline.packages import DatabaseRecord, read_header, write_database
from pipeline.store import Store
from pipeline.trees import ComposeOptions, Composition, compose, install_color, scan
from tests.system.rpm_factory import Forge, forge
from tests.system.trees import Found, differences, read_tree

SETUP = Path(__file__).parents[2] / "ci" / "mirror.d" / "setup"
DATABASE = ".database"
SEEDED = ("etc", "etc/passwd", "etc/group", "etc/passwd.rpmnew", "etc/group.rpmnew", DATABASE, "var/tmp", "var")
"""What the comparison's own preparation leaves in rpm's tree."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with forge(tmp_path_factory.mktemp("forge")) as it:
        yield it


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


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
    return compose([("all", headers(packages, store))], accounts(), options or ComposeOptions())


def layered(
    packages: Sequence[Path],
    store: Store,
    options: ComposeOptions | None = None,
    compression: Compression = Compression.GZIP,
) -> Layer:
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
    ours = read_tree(unpack(layered(packages, store, options), store=store))
    theirs = comparable(installed(packages, tmp_path / "rpm", *rpm))
    for path in only_rpms:
        del theirs[path]
    assert differences(comparable(ours), theirs, ("the layer", "rpm's tree")) == []
    return ours


def of_mirror(mirror: Path, *names: str) -> list[Path]:
    found = []
    for name in names:
        (package,) = (mirror / "base").glob(f"{name}-1.0-1.*.rpm")
        found.append(package)
    return found


# --- the same as rpm -------------------------------------------------------------------------------------


def test_the_layer_of_mysql_and_its_closure_is_what_rpm_installs(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    newest = {}
    for package in sorted((mirror / "base").glob("*.rpm")):
        if not package.name.startswith(("hardcase", "nginx", "postgresql", "redis")):
            newest[read_header(package, digest_file(package)).nevra.name] = package
    tree = assert_as_rpm_installs(list(newest.values()), store, tmp_path)
    assert len(tree) > 5000


@pytest.mark.parametrize(
    "names",
    [
        ("hardcase-modes",),
        ("hardcase-hardlinks",),
        ("hardcase-identical", "hardcase-identical-b"),
        ("hardcase-symlinks",),
        ("hardcase-config",),
        ("hardcase-languages",),
        ("hardcase-empty",),
        ("hardcase-old-payload",),
        ("hardcase-beneath", "hardcase-beneath-b"),
    ],
    ids=lambda names: names[0],
)
def test_a_hard_case_of_the_mirror_is_what_rpm_installs(
    mirror: Path, store: Store, tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert_as_rpm_installs(of_mirror(mirror, *names), store, tmp_path)


def test_paths_through_merged_directories_land_where_rpm_puts_them(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    (filesystem,) = (mirror / "base").glob("filesystem-*.rpm")
    tree = assert_as_rpm_installs([filesystem, *of_mirror(mirror, "hardcase-unmerged")], store, tmp_path)
    assert "usr/bin/hardcase-unmerged" in tree
    assert tree["bin"].link == "usr/bin"


def test_of_two_colours_the_preferred_one_is_installed_as_by_rpm(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    packages = sorted((mirror / "base").glob("hardcase-colour-*.rpm"))
    assert len(packages) == 2
    assert_as_rpm_installs(
        packages,
        store,
        tmp_path,
        rpm=["--ignorearch", "--define=_transaction_color 3", "--define=_prefer_color 2"],
    )


def test_documents_are_left_out_as_rpm_leaves_them_out(made: Forge, store: Store, tmp_path: Path) -> None:
    package = made.package(
        "documented",
        install=(
            "mkdir -p usr/share/doc/documented/html/deep usr/share/man/man1 usr/bin\n"
            "echo 1 >usr/share/doc/documented/html/deep/index; echo 2 >usr/share/doc/documented/README\n"
            "echo 3 >usr/share/man/man1/it.1; echo 4 >usr/bin/it"
        ),
        files=["/usr/share/doc/documented", "/usr/share/man/man1/it.1*", "/usr/bin/it"],
    )
    assert_as_rpm_installs(
        [package], store, tmp_path, options=ComposeOptions(docs={"all": False}), rpm=["--excludedocs"]
    )


def test_directories_that_only_held_documents_go_as_with_rpm(made: Forge, store: Store, tmp_path: Path) -> None:
    package = made.package(
        "nested",
        install="mkdir -p usr/lib/a/b/c; echo 1 >usr/lib/a/b/c/text",
        files=["%dir /usr/lib/a", "%dir /usr/lib/a/b", "%dir /usr/lib/a/b/c", "%doc /usr/lib/a/b/c/text"],
    )
    assert_as_rpm_installs(
        [package], store, tmp_path, options=ComposeOptions(docs={"all": False}), rpm=["--excludedocs"]
    )


@pytest.mark.parametrize("languages", ["de", "de_AT:fr", "en"])
def test_languages_are_left_out_as_rpm_leaves_them_out(
    mirror: Path, store: Store, tmp_path: Path, languages: str
) -> None:
    assert_as_rpm_installs(
        of_mirror(mirror, "hardcase-languages"),
        store,
        tmp_path,
        options=ComposeOptions(languages=tuple(languages.split(":"))),
        rpm=[f"--define=_install_langs {languages}"],
    )


def test_a_hard_link_whose_data_bearing_name_is_left_out_keeps_its_data(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    tree = assert_as_rpm_installs(
        of_mirror(mirror, "hardcase-hardlinks"),
        store,
        tmp_path,
        options=ComposeOptions(docs={"all": False}),
        rpm=["--excludedocs"],
        # rpm makes the directories of the name that it leaves out, because the data arrives under it.
        only_rpms=["usr/share", "usr/share/doc", "usr/share/doc/hardcase-hardlinks"],
    )
    assert tree["usr/bin/hardcase-hardlink"].names == (
        "usr/bin/hardcase-hardlink",
        "usr/libexec/hardcase/hardlink",
    )
    assert tree["usr/bin/hardcase-hardlink"].size > 0


def test_odd_names_and_kinds_are_what_rpm_installs(made: Forge, store: Store, tmp_path: Path) -> None:
    long = "/".join(["usr", *(letter * 120 for letter in "abcd")])
    package = made.package(
        "odd",
        install=(
            f"mkdir -p {long}; echo 1 >{long}/{'n' * 200}; ln -s {'t/' * 150} usr/far; mkfifo usr/fifo\n"
            'echo 2 >usr/größe; echo 3 >"usr/it\'s 100% "; touch -d @1 usr/epoch; touch -h -d @1 usr/far\n'
            "ln usr/größe usr/größer; ln -s größe usr/verweis; mkdir -m 1777 usr/sticky; >usr/none; chmod 0 usr/none"
        ),
        files=["/usr/*"],
    )
    tree = assert_as_rpm_installs([package], store, tmp_path)
    assert tree["usr/größe"].names == ("usr/größe", "usr/größer")
    assert tree["usr/fifo"].kind == "p"


def test_a_file_over_4_gib_passes_through_with_bounded_memory(
    made: Forge, store: Store, tmp_path: Path
) -> None:
    size = (4 << 30) + 5
    package = made.package("huge", install=f"truncate -s {size - 4} huge; echo end >>huge", files=["/huge"])
    script = (
        "import resource, sys; from pathlib import Path; from tests.system.test_layers import *\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "print(unpack(layered([Path(sys.argv[2])], store, compression=Compression.ZSTD), store=store))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, store.root, package],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    root, kilobytes = done.stdout.split()
    huge = Path(root, "huge")
    assert huge.stat().st_size == size
    assert huge.stat().st_blocks * 512 < size / 100, "zeros take room on the disk"
    with huge.open("rb") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"\0end\n"
    assert int(kilobytes) < 600_000
