"""Real packages and key files: verdicts as rpm 6.1 gave them, or as this rpm must, from the folder of real material."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.model.platform import PackageRepository
from pipeline.model.signing_key import AcceptedSignature
from pipeline.packages import verify_package
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.repos import read_keys
from tests.support.real import REAL, real_folder

UNSUPPORTED = "package-signature-unsupported"
SUBKEYS = {
    **{("sub", "k1"): "", ("prim", "k2"): "", ("rsasub", "k2"): "", ("edsub", "k2"): "", ("ed", "k3"): ""},
    **{("prim", "k2-nosub"): "", ("rsasub", "k2-nosub"): "package-key-unknown"},
    **{("edsub", "k2-nosub"): "package-key-unknown", ("sub", "k1-expprim"): "package-key-expired"},
    **{("rsasub", "k2-expsub"): "package-key-expired", ("prim", "k2-expsub"): ""},
    **{("prim", "k2-revsub"): "", ("edsub", "k2-revsub"): "", ("rsasub", "k2-revsub"): "package-key-revoked"},
}
"""Package and key file → error, as rpm 6.1 judges."""
RPM_6 = {
    **dict.fromkeys(("v4", "v4-2sig", "v4-ed", "v4-onlyv6sig", "v4-sha3", "v6", "v6-v4sig"), ""),
    **{"v4-sqv6": UNSUPPORTED, "hello-2.0-1.x86_64-signed": "", "hello-2.0-1.x86_64-signed-mldsa87": ""},
    **dict.fromkeys(
        ("hello-2.0-1.x86_64-signed-with-subkey", "hello-2.0-1.x86_64-signed-with-new-subkey"), UNSUPPORTED
    ),
}
"""Package → error with all keys of the folder. rpm 6.1 accepts them all; what rpm 4.18 cannot read is named."""
KEY_FILES = {
    "binary/fedora-Maxyapper7-website.gpg": (9, 9),
    "binary/fedora-mngugi-Bash_scripts.gpg": (4, 4),
    "yum-key.gpg": (2, 2),
    "teams-for-linux.asc": (2, 2),
    "bluejeans_pubkey.gpg": (3, 2),
    "qubes-developers-keys.asc": (15, 6),
    "RPM-GPG-KEY-redhat10-release": (3, 2),
    "RPM-GPG-KEY-redhat9-PQC-release": (1, 0),
}
"""File → its keys, and those of them that count."""


def verdict(package: Path, *files: Path, accept: tuple[AcceptedSignature, ...] = ()) -> str:
    keys = [key for file in files for key in read_keys("r", file.read_bytes(), file.name)]
    try:
        verify_package(package, trust_by_repository(keys, [PackageRepository("r", accept=accept)])["r"])
    except VerificationError as error:
        return error.code
    return ""


@pytest.mark.parametrize(("package", "keys"), SUBKEYS)
def test_subkeys_are_judged_as_by_rpm_6(package: str, keys: str) -> None:
    folder = real_folder("subkeys")
    assert verdict(folder / f"{package}.rpm", folder / f"{keys}.asc") == SUBKEYS[package, keys]


@pytest.mark.parametrize("package", RPM_6)
def test_packages_of_rpm_6_are_verified_or_what_cannot_be_checked_is_named(package: str) -> None:
    folder = real_folder("rpm6")
    assert verdict(folder / f"{package}.rpm", *sorted((folder / "keys").iterdir())) == RPM_6[package]


@pytest.mark.parametrize("name", KEY_FILES)
def test_all_keys_of_a_vendors_file_are_found_and_what_is_dropped_is_told(name: str) -> None:
    file = real_folder("keys") / name
    told: list[str] = []
    keys = read_keys("r", file.read_bytes(), name, told.append)
    counting = trust_by_repository(keys, [PackageRepository("r")])["r"].certificates
    assert (len(keys), len(counting)) == KEY_FILES[name]
    assert len(told) >= len(keys) - len(counting)


@pytest.mark.parametrize("accept", [(), (AcceptedSignature.LEGACY_HEADER_PAYLOAD,)])
def test_packages_of_el7_are_old_and_verified_where_they_are_accepted(accept: tuple[AcceptedSignature, ...]) -> None:
    folder = real_folder("el7-httpd")
    packages = sorted(folder.rglob("*.rpm"))
    found = {verdict(one, REAL / "keys/RPM-GPG-KEY-CentOS-7", accept=accept) for one in packages}
    assert packages and found == {"" if accept else "package-old-format"}


@pytest.mark.parametrize(("folder", "key"), [("rocky8", "RPM-GPG-KEY-rockyofficial"), ("fc43", "test-key.asc")])
def test_ordinary_packages_are_good(folder: str, key: str) -> None:
    packages = sorted(real_folder(folder).rglob("*.rpm"))
    assert packages and {verdict(one, REAL / "keys" / key) for one in packages} == {""}
