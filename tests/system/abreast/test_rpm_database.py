"""rpm's own database as rpm itself reads it: SQLite, and Berkeley DB with its read-only reader."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from pipeline.model.header import FileFlag
from pipeline.model.rpm_database import DatabaseFormat
from pipeline.packages import (
    DatabaseRecord,
    verify_package,
    write_database,
)
from tests.support.rpm_factory import Forge, header_of, trusting

DBPATH = "usr/lib/sysimage/rpm"
BACKENDS = {DatabaseFormat.SQLITE: "sqlite", DatabaseFormat.BDB: "bdb_ro"}
"""The formats that this machine's rpm reads, and its name of what reads them."""
FORMATS = pytest.mark.parametrize("form", BACKENDS)
INDEXES = [
    *("Basenames", "Conflictname", "Dirnames", "Enhancename", "Filetriggername", "Group", "Installtid", "Name"),
    *("Obsoletename", "Providename", "Recommendname", "Requirename", "Sha1header", "Sigmd5", "Suggestname"),
    *("Supplementname", "Transfiletriggername", "Triggername"),
]


@pytest.fixture(scope="module")
def two(made: Forge) -> list[Path]:
    return [
        made.package(
            "doc",
            install="mkdir -p usr/share/doc/doc; echo 1 >usr/share/doc/doc/README; echo 2 >usr/there",
            files=["%doc /usr/share/doc/doc", "/usr/there"],
        ),
        made.package("second", epoch=2, install="mkdir usr; echo 3 >usr/second", files=["/usr/second"]),
    ]


def write(root: Path, packages: list[Path], form: DatabaseFormat = DatabaseFormat.SQLITE) -> Path:
    records = []
    for package in packages:
        header = header_of(package)
        states = tuple(2 if file.flags & FileFlag.DOC else 0 for file in header.files)
        records.append(DatabaseRecord(package, header.nevra, states, 1_700_000_000, 3))
    folder = root / DBPATH
    folder.mkdir(parents=True)
    write_database(folder, records, form)
    return folder


def rpm(root: Path, *words: str, form: DatabaseFormat = DatabaseFormat.SQLITE) -> str:
    done = subprocess.run(
        ["rpm", "--root", root, "--dbpath", f"/{DBPATH}", "--define", f"_db_backend {BACKENDS[form]}", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    assert not done.stderr, done.stderr
    return done.stdout


@FORMATS
def test_rpm_reads_the_database_that_was_written(form: DatabaseFormat, two: list[Path], tmp_path: Path) -> None:
    write(tmp_path, two, form)
    listed = rpm(tmp_path, "-qa", "--qf", "%{nevra} %{installtime} %{installcolor}\n", form=form)
    assert sorted(listed.splitlines()) == [
        "doc-1-1.noarch 1700000000 3",
        "second-2:1-1.noarch 1700000000 3",
    ]
    assert rpm(tmp_path, "-qf", "/usr/there", form=form) == "doc-1-1.noarch\n"
    assert rpm(tmp_path, "-q", "--whatprovides", "second", form=form) == "second-1-1.noarch\n"


@FORMATS
def test_what_was_left_out_is_recorded_as_not_installed(form: DatabaseFormat, two: list[Path], tmp_path: Path) -> None:
    write(tmp_path, two, form)
    states = dict(reversed(line.rsplit(None, 1)) for line in rpm(tmp_path, "-qs", "doc", form=form).splitlines())
    assert states == {
        "/usr/share/doc/doc": "normal",
        "/usr/share/doc/doc/README": "not installed",
        "/usr/there": "normal",
    }


@FORMATS
def test_rpm_verify_misses_what_is_missing_and_nothing_that_was_left_out(
    form: DatabaseFormat, two: list[Path], tmp_path: Path
) -> None:
    write(tmp_path, two, form)
    (tmp_path / "usr/share/doc/doc").mkdir(parents=True)
    lines = rpm(tmp_path, "-Va", "--nouser", "--nogroup", form=form).splitlines()
    assert sorted(line.split()[-1] for line in lines) == ["/usr/second", "/usr/there"]


def test_the_database_is_one_file_and_the_same_twice(two: list[Path], tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, two) for name in ("one", "two"))
    assert [path.name for path in first.iterdir()] == ["rpmdb.sqlite"]
    assert (first / "rpmdb.sqlite").read_bytes() == (second / "rpmdb.sqlite").read_bytes()
    assert stat.S_IMODE((first / "rpmdb.sqlite").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("form", "names"),
    [(DatabaseFormat.BDB, [*INDEXES, "Packages"]), (DatabaseFormat.NDB, ["Index.db", "Packages.db"])],
)
def test_a_database_of_another_format_is_the_same_twice_and_has_all_indexes(
    form: DatabaseFormat, names: list[str], two: list[Path], tmp_path: Path
) -> None:
    """An image's rpm makes an index that is missing, which it cannot do where it may only read."""
    first, second = (write(tmp_path / name, two, form) for name in ("one", "two"))
    assert sorted(path.name for path in first.iterdir()) == sorted(names)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_database_does_not_say_which_sqlite_wrote_it(two: list[Path], tmp_path: Path) -> None:
    data = (write(tmp_path, two) / "rpmdb.sqlite").read_bytes()
    assert int.from_bytes(data[96:100], "big") == 3_034_001


def test_the_database_is_read_on_a_read_only_file_system(two: list[Path], tmp_path: Path) -> None:
    """A write-ahead log would need a file beside it that cannot be made there."""
    write(tmp_path, two)
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && rpm --root "$1" --dbpath "$2" -qa'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "-", tmp_path, f"/{DBPATH}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["doc-1-1.noarch", "second-1-1.noarch"]
    assert not done.stderr


def test_the_signature_of_an_installed_package_is_kept(made: Forge, two: list[Path], tmp_path: Path) -> None:
    """Scanners and `rpm -qi` show who signed a package."""
    write(tmp_path, two)
    assert verify_package(two[0], trusting(made.key))[-8:] in rpm(tmp_path, "-q", "doc", "--qf", "%{rsaheader:pgpsig}")
