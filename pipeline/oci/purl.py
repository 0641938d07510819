"""Package URLs (purl-spec, types `rpm` and `oci`): names of packages that scanners know."""

from __future__ import annotations

import re

from packageurl import PackageURL

from pipeline.digest import Digest
from pipeline.model.package import Nevra

UNKNOWN_VENDOR = "unknown"
"""The namespace where a header names no vendor: the type `rpm` demands one."""

_NAMESPACES = {
    "almalinux": "almalinux",
    "amazon linux": "amzn",
    "centos": "centos",
    "fedora project": "fedora",
    "opensuse": "opensuse",
    "oracle america": "oracle",
    "red hat, inc.": "redhat",
    "rocky enterprise software foundation": "rocky",
    "suse linux products gmbh": "suse",
    "suse llc <https://www.suse.com/>": "suse",
}
"""What distributions write into RPMTAG_VENDOR, in lower case → the namespace by which scanners know them."""


def vendor_namespace(vendor: str) -> str:
    """Return the purl namespace of a vendor.

    A distribution's well-known one, else the vendor's name in lower case with `-` for what is neither letter nor digit.
    """
    plain = " ".join(vendor.lower().split())
    return _NAMESPACES.get(plain) or re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or UNKNOWN_VENDOR


def package_url(nevra: Nevra, vendor: str, source_rpm: str) -> PackageURL:
    """Return the package URL of an RPM.

    It is `pkg:rpm/VENDOR/NAME@VERSION-RELEASE?arch=…&epoch=…&upstream=…`; the epoch is left out when it is 0.
    """
    return PackageURL(
        "rpm",
        vendor_namespace(vendor),
        nevra.name,
        f"{nevra.version}-{nevra.release}",
        {
            "arch": nevra.arch,
            **({"epoch": str(nevra.epoch)} if nevra.epoch else {}),
            **({"upstream": source_rpm} if source_rpm else {}),
        },
    )


def source_url(source_rpm: str, vendor: str) -> PackageURL | None:
    """Return the package URL of a source RPM, from the name of its file.

    The name is `NAME-VERSION-RELEASE.src.rpm`; None for another name.
    """
    found = re.fullmatch(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm", source_rpm)
    return PackageURL("rpm", vendor_namespace(vendor), found[1], found[2], {"arch": "src"}) if found else None


def image_url(name: str, digest: Digest, architecture: str) -> PackageURL:
    """`pkg:oci/NAME@sha256:…?arch=…`: where it is published is not part of what it is."""
    return PackageURL("oci", None, name.lower(), str(digest), {"arch": architecture})
