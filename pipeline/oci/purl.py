"""Make package URLs (purl-spec) of RPMs, source RPMs and images, as scanners use them."""

from __future__ import annotations

import re

from packageurl import PackageURL

from pipeline.digest import Digest
from pipeline.model.package import Nevra

UNKNOWN_VENDOR = "unknown"
"""Namespace of packages without a vendor: the type `rpm` requires one."""

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
"""A distribution's RPMTAG_VENDOR in lower case → the namespace that scanners use."""


def vendor_namespace(vendor: str) -> str:
    """Return the purl namespace of a vendor.

    A distribution's known one, else the vendor's name in lower case with `-` for other characters than letters and
    digits.
    """
    plain = " ".join(vendor.lower().split())
    return _NAMESPACES.get(plain) or re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or UNKNOWN_VENDOR


def package_url(nevra: Nevra, vendor: str, source_rpm: str) -> PackageURL:
    """Return the package URL of an RPM.

    It is `pkg:rpm/VENDOR/NAME@VERSION-RELEASE?arch=…&epoch=…&upstream=…`; an epoch of 0 is omitted.
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
    """Return a source RPM's package URL from its file name; None unless `NAME-V-R.src.rpm`."""
    found = re.fullmatch(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm", source_rpm)
    return PackageURL("rpm", vendor_namespace(vendor), found[1], found[2], {"arch": "src"}) if found else None


def image_url(name: str, digest: Digest, architecture: str) -> PackageURL:
    """Return `pkg:oci/NAME@sha256:…?arch=…` of an image, without its repository."""
    return PackageURL("oci", None, name.lower(), str(digest), {"arch": architecture})
