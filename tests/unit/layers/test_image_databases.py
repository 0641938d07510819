"""No file, label or layer hides a package of an image from what reads its RPM databases."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import VerificationError
from pipeline.layers import image_contents, read_contents
from pipeline.model.rpm_database import (
    DATABASE_FILES,
    DATABASE_FOLDERS,
    DATABASE_LABEL,
    FORMAT_LABEL,
    DatabaseFormat,
    RpmDatabase,
    database_paths,
    labelled,
)
from pipeline.packages import bdb_writer, ndb_writer, rpmdb_union
from pipeline.sandbox import RootFs
from pipeline.smoke.instance_probe import InstanceProbe
from tests.unit.packages.test_packages_installed import APP, database, header
from tests.unit.packages.test_rpm_database_place import OF_APP, image, put

APP_NEVRA, BASH_NEVRA = "app-7:1.0-2.x86_64", "bash-5-1.noarch"
BASH = header(t1000="bash", t1001="5", t1002="1", t1022="noarch")
SQLITE, BDB, NDB = (DATABASE_FILES[form] for form in (DatabaseFormat.SQLITE, DatabaseFormat.BDB, DatabaseFormat.NDB))
DECOYS = {
    SQLITE: database(BASH),
    BDB: bdb_writer.write_bdb_packages({1: BASH}),
    NDB: ndb_writer.write_ndb_packages({1: BASH}),
}
BDB_HERE = labelled({}, RpmDatabase("/var/lib/rpm", DatabaseFormat.BDB))
LYING = {DATABASE_LABEL: "/opt/other", FORMAT_LABEL: "ndb"}


def found(labels: dict[str, str], *lowers: Path) -> list[str]:
    return [package.nevra for package in read_contents(image(labels), lowers).packages]


@pytest.mark.parametrize("labels", [{}, BDB_HERE, LYING], ids=["none", "true", "lying"])
@pytest.mark.parametrize("file", DECOYS)
@pytest.mark.parametrize("folder", [*DATABASE_FOLDERS, "/opt/other"])
def test_no_decoy_hides_a_package(folder: str, file: str, labels: dict[str, str], tmp_path: Path) -> None:
    """Which one the image's own rpm reads is up to its configuration, so the packages of all are taken."""
    decoy, real = f"{folder}/{file}", f"/var/lib/rpm/{BDB}"
    if decoy == real:
        real = f"/usr/share/rpm/{BDB}"
    upper, lower, both = tmp_path / "upper", tmp_path / "lower", tmp_path / "both"
    for place in (upper, both):
        put(place, decoy, DECOYS[file])
    for place in (lower, both):
        put(place, real, OF_APP[DatabaseFormat.BDB])
    read = folder != "/opt/other" or labels is LYING
    for lowers in ([lower, upper], [upper, lower], [both]):
        assert found(labels, *lowers) == ([APP_NEVRA, BASH_NEVRA] if read else [APP_NEVRA])


def test_a_database_that_an_upper_layer_removes_is_not_read(tmp_path: Path) -> None:
    """The layers' own files at one path stand for each other; what a layer removes is in none."""
    put(tmp_path / "a", f"/var/lib/rpm/{BDB}", OF_APP[DatabaseFormat.BDB])
    put(tmp_path / "b", f"/var/lib/rpm/{SQLITE}", database(BASH))
    (tmp_path / "c/var/lib/rpm").mkdir(parents=True)
    if os.geteuid() == 0:
        os.mknod(tmp_path / f"c/var/lib/rpm/{SQLITE}", stat.S_IFCHR, 0)
    else:
        (tmp_path / f"c/var/lib/rpm/{SQLITE}").mkdir()
    contents = read_contents(image({}), [tmp_path / name for name in "abc"])
    assert [package.nevra for package in contents.packages] == [APP_NEVRA]
    assert contents.database == f"/var/lib/rpm/{BDB}"


def test_the_database_of_the_uppermost_layer_counts(tmp_path: Path) -> None:
    put(tmp_path / "a", f"/var/lib/rpm/{SQLITE}", database(BASH))
    put(tmp_path / "b", f"/var/lib/rpm/{SQLITE}", database(APP))
    assert found({}, tmp_path / "a", tmp_path / "b") == [APP_NEVRA]


def test_a_folder_may_be_a_symlink_to_one_of_another_layer(tmp_path: Path) -> None:
    put(tmp_path / "a", f"/opt/db/{BDB}", OF_APP[DatabaseFormat.BDB])
    put(tmp_path / "a", f"/usr/share/rpm/{SQLITE}", database(BASH))
    (tmp_path / "b/var/lib").mkdir(parents=True)
    (tmp_path / "b/var/lib/rpm").symlink_to("/opt/db")
    assert found({}, tmp_path / "a", tmp_path / "b") == [APP_NEVRA, BASH_NEVRA]


def test_two_paths_of_one_database_are_one(tmp_path: Path) -> None:
    put(tmp_path / "a", f"/usr/lib/sysimage/rpm/{SQLITE}", database(APP))
    (tmp_path / "a/var/lib").mkdir(parents=True)
    (tmp_path / "a/var/lib/rpm").symlink_to("../../usr/lib/sysimage/rpm")
    contents = read_contents(image({}), [tmp_path / "a"])
    assert [package.nevra for package in contents.packages] == [APP_NEVRA]
    assert contents.database == f"/usr/lib/sysimage/rpm/{SQLITE}"


def test_a_directory_with_a_database_s_name_is_none(tmp_path: Path) -> None:
    (tmp_path / f"a/usr/lib/sysimage/rpm/{SQLITE}").mkdir(parents=True)
    put(tmp_path / "a", f"/var/lib/rpm/{BDB}", OF_APP[DatabaseFormat.BDB])
    assert found({}, tmp_path / "a") == [APP_NEVRA]


@pytest.mark.parametrize("folder", ["", "var/lib/rpm", "/var\0/lib", "/" + "a" * 5000, "/\ud800"])
def test_a_label_that_names_no_folder_is_refused(folder: str) -> None:
    with pytest.raises(VerificationError) as caught:
        database_paths({DATABASE_LABEL: folder})
    assert caught.value.code == "rpmdb-label-malformed"


def test_a_label_with_odd_components_is_taken_as_a_path(tmp_path: Path) -> None:
    put(tmp_path / "a", f"/opt/vendor/{SQLITE}", database(APP))
    assert found({DATABASE_LABEL: "/opt/x/.././/vendor/"}, tmp_path / "a") == [APP_NEVRA]
    assert found({DATABASE_LABEL: "/../../../opt/vendor"}, tmp_path / "a") == [APP_NEVRA]
    assert found({DATABASE_LABEL: "/" + "a" * 500}, tmp_path / "a") == []


def test_a_database_that_is_damaged_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It is no reason to read another one alone."""
    put(tmp_path, f"/var/lib/rpm/{BDB}", OF_APP[DatabaseFormat.BDB])
    put(tmp_path, f"/usr/share/rpm/{SQLITE}", b"damaged")
    with pytest.raises(VerificationError) as caught:
        found({}, tmp_path)
    assert (caught.value.code, caught.value.problems[0].place) == ("rpmdb-damaged", f"/usr/share/rpm/{SQLITE}")


def test_databases_beyond_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file that is too large is passed over for another."""
    one, other = database(APP), database(BASH)
    put(tmp_path / "a", f"/var/lib/rpm/{SQLITE}", one)
    put(tmp_path / "a", f"/usr/share/rpm/{SQLITE}", other)
    for limit, refused in ((len(one) + len(other), False), (len(one) + len(other) - 1, True), (len(one) - 1, True)):
        monkeypatch.setattr(image_contents, "DATABASE_LIMIT", limit)
        monkeypatch.setattr(rpmdb_union, "DATABASE_LIMIT", limit)
        if refused:
            with pytest.raises(VerificationError) as caught:
                found({}, tmp_path / "a")
            assert caught.value.code == "rpmdb-too-large"
        else:
            assert len(found({}, tmp_path / "a")) == 2


def test_a_running_container_s_packages_are_those_of_all_databases(tmp_path: Path) -> None:
    put(tmp_path, f"/var/lib/rpm/{BDB}", OF_APP[DatabaseFormat.BDB])
    (tmp_path / f"usr/lib/sysimage/rpm/{SQLITE}").mkdir(parents=True)
    handle = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    instance: Any = SimpleNamespace(files=RootFs(handle, 0))
    probe = InstanceProbe(instance, image({}))
    names = [[str(one.nevra) for one in probe.installed() or ()]]
    put(tmp_path, f"/usr/share/rpm/{SQLITE}", DECOYS[SQLITE])
    names.append([str(one.nevra) for one in probe.installed() or ()])
    os.close(handle)
    assert names == [[APP_NEVRA], [APP_NEVRA, BASH_NEVRA]]


@pytest.mark.parametrize("path", ["/", "/var", "/var\0", "/" + "a/" * 3000, "/" + "a" * 300])
def test_what_is_no_file_in_a_container_is_not_read(path: str, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    handle = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    assert RootFs(handle, 0).read(path, limit=10) is None
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
    os.close(handle)
