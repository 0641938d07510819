"""The packages of the look-alikes: made by rpm once for each compression, signed for each vendor by hand."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.support.lookalikes.signing import SigningKey
from tests.support.rpm_factory import Forge, Signed
from tests.support.signed_rpms import PGP, RSA_HEADER, Parts

BASE = ("system-release", "setup", "filesystem", "glibc", "bash", "coreutils", "tzdata", "ca-certificates")
"""Names that recipes/base.yaml asks for; each package requires the one before it, so that it takes all to have bash."""

PARTS = tuple(f"part-{number}" for number in range(4))
"""A package for each repository of a platform: an image with all of them was made from all repositories."""

PRODUCTS = {
    "mysql-8.4": ("mysql-community-server", "mysql-community-client"),
    "fedora": ("mysql-server", "mysql"),
    "oss": ("openSUSE-release", "timezone", "ca-certificates-mozilla", "mariadb", "mariadb-client"),
}
"""Packages that shipped recipes ask for, by the repository's id, under the names that they have there."""

_PROVIDES = {"openSUSE-release": "distribution-release"}
_ENTRY = re.compile(rb"<package .*?</package>", re.DOTALL)
_DOCUMENTS = ("primary", "filelists", "other")
_SPEC = """Name: lookalikes
Version: 1
Release: 1
Summary: made for a test
License: MIT
BuildArch: noarch
AutoReqProv: no
%description
Made for a test.
%install
mkdir -p %{buildroot}/usr/share/lookalikes
for name in @NAMES@; do echo "$name" >%{buildroot}/usr/share/lookalikes/$name; done
"""
_PACKAGE = """
%package -n {name}
Summary: made for a test
AutoReqProv: no
{relations}
%description -n {name}
Made for a test.
%files -n {name}
/usr/share/lookalikes/{name}
"""


class Payload(Enum):
    """Compression of payloads, as rpm's macro `_binary_payload` names it."""

    ZSTD = "w19.zstdio"
    XZ = "w2.xzdio"
    GZIP = "w9.gzdio"


class Signature(Enum):
    """What a vendor's packages are signed with: the version of the signature, and whether a second one covers header
    and payload, as rpm before 4.14 demanded and some vendors still add."""

    V3 = (3, False)
    V3_TWICE = (3, True)
    V4 = (4, False)
    V4_TWICE = (4, True)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A package without signature, and its entries in the three documents of metadata."""

    name: str
    parts: Parts
    checksum: bytes
    size: int
    entries: tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class SignedPackage:
    """A package as a vendor signs it. `entries` name it as `location`."""

    name: str
    data: bytes
    location: str
    entries: tuple[bytes, bytes, bytes]


def unsigned_packages(forge: Forge, folder: Path, payload: Payload) -> tuple[Unsigned, ...]:
    """All packages, by rpmbuild and createrepo_c."""
    names = (*BASE, *PARTS, *(name for listed in PRODUCTS.values() for name in listed))
    spec = _SPEC.replace("@NAMES@", " ".join(names))
    for index, name in enumerate(names):
        requires = f"Requires: {names[index - 1]}" if 0 < index < len(BASE) else ""
        provides = f"Provides: {_PROVIDES[name]}" if name in _PROVIDES else ""
        spec += _PACKAGE.format(name=name, relations=requires or provides)
    built = forge.spec(spec, payload=payload.value, signed=Signed.NOT)
    place = folder / payload.name
    place.mkdir(parents=True)
    for path in built:
        path.rename(place / path.name)
    subprocess.run(["createrepo_c", "--quiet", "--compress-type=gz", place], check=True)
    documents = [_unpacked(place, kind) for kind in _DOCUMENTS]
    found = []
    for path in sorted(place.glob("*.rpm")):
        data = path.read_bytes()
        checksum = hashlib.sha256(data).hexdigest().encode()
        entries = [next(one for one in _ENTRY.findall(text) if checksum in one) for text in documents]
        name = path.name.rsplit("-", 2)[0]
        found.append(Unsigned(name, Parts.of(path), checksum, len(data), (entries[0], entries[1], entries[2])))
    assert {one.name for one in found} == set(names)
    return tuple(found)


def sign_packages(
    packages: Iterable[Unsigned], key: SigningKey, kind: Signature, *, layout: str
) -> tuple[SignedPackage, ...]:
    """Sign packages; `layout` is the folder of each in a repository, where `{first}` is its first letter."""
    found = []
    version, twice = kind.value
    for one in packages:
        parts = one.parts
        signatures = {RSA_HEADER: key.sign(parts.header, version=version)}
        if twice:
            signatures[PGP] = key.sign(parts.header + parts.payload, version=version)
        data = parts.signed(signatures)
        folder = layout.format(first=one.name[0])
        location = f"{folder}{one.name}-1-1.noarch.rpm"
        entries = [_renamed(entry, one, data, location) for entry in one.entries]
        found.append(SignedPackage(one.name, data, location, (entries[0], entries[1], entries[2])))
    return tuple(found)


def documents_of(packages: Sequence[SignedPackage]) -> dict[str, bytes]:
    """The three documents of metadata, by kind."""
    root = {"primary": "metadata", "filelists": "filelists", "other": "otherdata"}
    space = {"primary": "common", "filelists": "filelists", "other": "other"}
    return {
        kind: (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<{root[kind]} '
            f'xmlns="http://linux.duke.edu/metadata/{space[kind]}" '
            f'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{len(packages)}">\n'
        ).encode()
        + b"\n".join(one.entries[index] for one in packages)
        + f"\n</{root[kind]}>\n".encode()
        for index, kind in enumerate(_DOCUMENTS)
    }


def _renamed(entry: bytes, package: Unsigned, data: bytes, location: str) -> bytes:
    """An entry of the package as it is signed."""
    entry = entry.replace(package.checksum, hashlib.sha256(data).hexdigest().encode())
    entry = entry.replace(f'package="{package.size}"'.encode(), f'package="{len(data)}"'.encode())
    return re.sub(rb'<location href="[^"]*"/>', f'<location href="{location}"/>'.encode(), entry)


def _unpacked(folder: Path, kind: str) -> bytes:
    (path,) = folder.glob(f"repodata/*-{kind}.xml.gz")
    return subprocess.run(["gzip", "-dc", path], check=True, capture_output=True).stdout
