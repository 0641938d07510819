"""Real packages and key files: verdicts as rpm 6.1 gave them, or as this rpm must, from the folder of real material."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import digest_file
from pipeline.errors import VerificationError
from pipeline.model.platform import PackageRepository
from pipeline.model.signing_key import AcceptedSignature
from pipeline.packages import read_header, read_payload, verify_package
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.repos import read_keys
from tests.support.real import REAL, real_folder
from tests.support.shipped_recipes import shipped_platforms

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
    "hello-2.0-1.x86_64-signed-with-subkey": "package-key-revoked",
    "hello-2.0-1.x86_64-signed-with-new-subkey": UNSUPPORTED,
}
"""Package → error with all keys of the folder, of which one file revokes a subkey of another.

rpm 6.1 accepts all with the keys that count; what rpm 4.18 cannot read is named."""
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


PINNED = {
    "fedora-43": "binary/fedora-mngugi-Bash_scripts.gpg",
    "almalinux-9": "RPM-GPG-KEY-AlmaLinux-9",
    "rocky-9": "RPM-GPG-KEY-Rocky-9",
    "centos-stream-9": "RPM-GPG-KEY-CentOS-Official",
}
"""Platform that is shipped → a file of keys as its server hands it out."""


@pytest.mark.parametrize("name", PINNED)
def test_the_fingerprint_of_a_shipped_platform_is_that_of_its_vendors_key(name: str) -> None:
    file = real_folder("keys") / PINNED[name]
    for repository in shipped_platforms()[name].repositories:
        keys = read_keys(repository.id, file.read_bytes(), file.name, fingerprints=repository.fingerprints)
        assert [key.fingerprint for key in keys] == list(repository.fingerprints)
        assert trust_by_repository(keys, [repository])[repository.id].certificates


def test_a_package_of_format_6_is_read_with_its_files() -> None:
    package = real_folder("rpm6") / "v6.rpm"
    header = read_header(package, digest_file(package))
    assert (str(header.nevra), [one.path for one in header.files if one.digest]) == (
        "vtest-1-1.noarch",
        ["/etc/hello", "/etc/hello2", "/usr/lib/sysusers.d/vt.conf", "/usr/sbin/vtest"],
    )
    assert sorted(b"".join(file.pieces()) for file in read_payload(package))[1] == b"hello\n"
