"""Folders of any name are given to rpm and gpgv as they are: nothing of a path is expanded, or run by a shell."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.digest import digest_file
from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.model.signing_key import PackageTrust
from pipeline.openpgp_packets import read_packets, read_signature
from pipeline.packages import DatabaseRecord, read_header, read_installed, rpm_keyring, write_database
from pipeline.packages.macro_paths import macro_path
from pipeline.packages.package_signature import _judge, _Verdict
from pipeline.packages.rpm_file_layout import RpmFileLayout
from pipeline.packages.signature_header import PackageSignature
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.openpgp import key_maker
from tests.support.real import real_folder
from tests.support.signed_rpms import PGP
from tests.unit.packages.test_real_signatures import verdict

NAMES = pytest.mark.parametrize("name", AWKWARD_NAMES, ids=ascii)


@pytest.fixture
def folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / name
    made.mkdir()
    monkeypatch.chdir(tmp_path)
    return made


@NAMES
@pytest.mark.parametrize("form", DatabaseFormat)
def test_the_database_is_written_in_a_folder_of_any_name(folder: Path, form: DatabaseFormat) -> None:
    package = real_folder("subkeys") / "prim.rpm"
    header = read_header(package, digest_file(package))
    write_database(folder, [DatabaseRecord(package, header.nevra, (0,) * len(header.files), 1_700_000_000)], form)
    assert read_installed((folder / DATABASE_FILES[form]).read_bytes())
    assert [*folder.parent.iterdir()] == [folder]


@NAMES
@pytest.mark.parametrize(
    ("package", "key", "expected"),
    [("rsasub", "k2", ""), ("rsasub", "k2-nosub", "package-key-unknown")],
)
def test_signatures_are_judged_alike_with_temporary_files_in_any_folder(
    package: str, key: str, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = real_folder("subkeys")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    # Another thread has no keyring yet.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(verdict, material / f"{package}.rpm", material / f"{key}.asc").result()
    assert found == expected
    assert [*folder.parent.iterdir()] == [folder] and not [*folder.iterdir()]


@NAMES
def test_gpgv_judges_alike_with_temporary_files_in_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with key_maker(folder.parent / "gpg") as maker:
        public, packet = maker.public, maker.sign(b"data")
    (one,) = read_packets(packet)
    signature = PackageSignature(packet, True, False, PGP, read_signature(one.body))
    package = folder.parent / "it.rpm"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for data, expected in ((b"data", _Verdict.GOOD), (b"date", _Verdict.BAD)):
        package.write_bytes(data)
        assert _judge(package, RpmFileLayout(0, 0), signature, PackageTrust((public,))) is expected
    assert not [*folder.iterdir()] and not (folder.parent / "RAN").exists()


@NAMES
def test_rpm_expands_nothing_of_the_folder_of_its_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    macros = dict[str, str]()
    monkeypatch.setattr(rpm_keyring.rpm, "addMacro", macros.__setitem__)
    monkeypatch.setattr(rpm_keyring.rpm, "delMacro", macros.get)
    rpm_keyring._load_keyring(())
    assert macros["_keyringpath"].removeprefix("/proc/self/fd/").rstrip("/").isdecimal()


def test_a_folder_that_no_descriptor_leads_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.packages.macro_paths._DESCRIPTORS", str(tmp_path / "no-proc"))
    with pytest.raises(FileNotFoundError, match="no-proc"), macro_path(tmp_path):
        pass
