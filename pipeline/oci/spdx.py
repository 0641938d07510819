"""Make an SPDX 2.3 document (JSON value) from a bill of materials, and validate documents.

https://spdx.github.io/spdx-spec/v2.3/

The document describes the image, a package that contains its layers, which contain the RPMs, each generated from
its source package. Licences are those that the headers declare; none are concluded. The members are written here, which
takes a tenth of the time that the library takes; the tests hold that it reads and writes the same, and it validates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from packageurl import PackageURL

from pipeline.digest import Digest
from pipeline.model.bill import Bill, BilledLayer, BilledPackage
from pipeline.oci.licences import licence_expression, licence_references, own_licence
from pipeline.oci.purl import image_url, package_url, source_url

SPDX_VERSION = "SPDX-2.3"
_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_UNSAID = "NOASSERTION"
"""The format's word for what is not said."""
_WEB = re.compile(r"https?://[A-Za-z0-9]+([.-][A-Za-z0-9]+)*\.[A-Za-z]{2,}(:[0-9]{1,5})?(/[!-~]*)?")
"""Home pages that are valid URIs for the specification and its validator: with a domain."""


_Value = dict[str, object]

_PACKAGES_KEPT = 4096
"""Packages that are kept in memory: a few kilobytes each."""


def spdx_value(bill: Bill, namespace: str, tool: str) -> object:
    """Return the SPDX document of a bill as a JSON value.

    `namespace`: its unique URI; `tool`: name and version of the program that makes it.
    """
    licences = list(_own_licences(bill))
    return {
        "SPDXID": _DOCUMENT,
        "spdxVersion": SPDX_VERSION,
        "dataLicense": "CC0-1.0",
        "name": f"{bill.name}-{bill.version}",
        "documentNamespace": namespace,
        "creationInfo": {
            "created": datetime.fromtimestamp(bill.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: {tool}"],
        },
        "packages": [
            _image(bill),
            *(_layer(number, layer) for number, layer in enumerate(bill.layers)),
            *(describe_package(package) for package in bill.packages),
            *(_source(name, vendor) for name, vendor in _sources(bill)),
        ],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in _relationships(bill)
        ],
        **({"hasExtractedLicensingInfos": licences} if licences else {}),
    }


def spdx_problems(text: str) -> list[str]:
    """Validate a document with the specification's own validator; return the problems as texts."""
    # Here and not above: the library takes a tenth of a second to load, and documents are written without it.
    from spdx_tools.spdx.parser.error import SPDXParsingError
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    try:
        document = JsonLikeDictParser().parse(json.loads(text))  # type: ignore[no-untyped-call]
    except SPDXParsingError as error:
        return [str(message) for message in error.messages]
    return [message.validation_message for message in validate_full_spdx_document(document, SPDX_VERSION)]


# --- packages --------------------------------------------------------------------------------------------


def _described(identifier: str, name: str, version: str | None, **more: object) -> _Value:
    """Return a package with what the format demands; members in `more` may be None."""
    given = {"versionInfo": version, **more}
    return {
        "SPDXID": identifier,
        "name": name,
        "downloadLocation": _UNSAID,
        "filesAnalyzed": False,
        "licenseConcluded": _UNSAID,
        "licenseDeclared": _UNSAID,
        "copyrightText": _UNSAID,
        **{member: value for member, value in given.items() if value is not None},
    }


def _image(bill: Bill) -> _Value:
    return _described(
        _IMAGE,
        bill.name,
        bill.version,
        checksums=_sha256(bill.digest),
        comment=f"The checksum is the manifest's; the config is {bill.config}.",
        externalRefs=_purl(image_url(bill.name, bill.digest, bill.architecture)),
        primaryPackagePurpose="CONTAINER",
    )


def _layer(number: int, layer: BilledLayer) -> _Value:
    return _described(
        _layer_id(number),
        layer.name,
        str(layer.digest),
        checksums=_sha256(Digest(layer.digest.hex)),
        comment=f"A layer of the image; its diff_id is {layer.diff_id}.",
        primaryPackagePurpose="ARCHIVE",
    )


@lru_cache(maxsize=_PACKAGES_KEPT)
def describe_package(package: BilledPackage) -> _Value:
    """Return what the document says of a package, which nobody may change."""
    nevra = package.nevra
    fixes = f" Its changelog names {', '.join(package.fixes)}." if package.fixes else ""
    return _described(
        _package_id(package),
        nevra.name,
        nevra.evr,
        packageFileName=f"{nevra.name}-{nevra.version}-{nevra.release}.{nevra.arch}.rpm",
        supplier=_supplier(package.vendor),
        checksums=_sha256(package.checksum),
        homepage=package.url if _WEB.fullmatch(package.url) else None,
        sourceInfo=f"From the repository '{package.repository}'.{fixes}",
        licenseDeclared=_declared(package.license),
        summary=package.summary or None,
        externalRefs=_purl(package_url(nevra, package.vendor, package.source_rpm)),
    )


def _source(name: str, vendor: str) -> _Value:
    url = source_url(name, vendor)
    return _described(
        _source_id(name),
        (url.name if url else "") or name,
        url.version if url else None,
        packageFileName=name,
        supplier=_supplier(vendor),
        externalRefs=_purl(url) if url else None,
        primaryPackagePurpose="SOURCE",
    )


def _sources(bill: Bill) -> list[tuple[str, str]]:
    """Return each source package once, with the vendor of the first package built from it."""
    found: dict[str, str] = {}
    for package in bill.packages:
        if package.source_rpm:
            found.setdefault(package.source_rpm, package.vendor)
    return sorted(found.items())


# --- relationships ---------------------------------------------------------------------------------------


def _relationships(bill: Bill) -> Iterator[tuple[str, str, str]]:
    yield _DOCUMENT, "DESCRIBES", _IMAGE
    layers = {layer.name: _layer_id(number) for number, layer in enumerate(bill.layers)}
    for layer in layers.values():
        yield _IMAGE, "CONTAINS", layer
    for package in bill.packages:
        yield layers.get(package.layer, _IMAGE), "CONTAINS", _package_id(package)
    for package in bill.packages:
        if package.source_rpm:
            source = _source_id(package.source_rpm)
            yield _package_id(package), "GENERATED_FROM", source


def _own_licences(bill: Bill) -> Iterator[_Value]:
    """Yield the required information on every `LicenseRef-` in the document."""
    tags = {package.license for package in bill.packages if package.license.strip()}
    said = {own_licence(tag): (tag, _NO_EXPRESSION) for tag in tags if licence_expression(tag) is None}
    said |= {name: (name, _NAMED_ONLY) for tag in tags for name in licence_references(tag)}
    for name, (text, comment) in sorted(said.items()):
        yield {"licenseId": name, "extractedText": text, "name": text[:200], "comment": comment}


_NO_EXPRESSION = "What the package's License tag says; it is no SPDX licence expression."
_NAMED_ONLY = "A distribution's name for a licence; its text is in the package, and not here."


def _declared(tag: str) -> str:
    if not tag.strip():
        return _UNSAID
    return licence_expression(tag) or own_licence(tag)


def _supplier(vendor: str) -> str:
    """Return the vendor on one line without parentheses, which in the format mean an address."""
    name = " ".join(vendor.split()).translate(str.maketrans("()", "[]"))
    return f"Organization: {name}" if name else _UNSAID


def _sha256(digest: Digest) -> list[_Value]:
    return [{"algorithm": "SHA256", "checksumValue": digest.hex}]


def _purl(url: PackageURL) -> list[_Value]:
    locator = url.to_string()
    return [{"referenceCategory": "PACKAGE_MANAGER", "referenceType": "purl", "referenceLocator": locator}]


def _layer_id(number: int) -> str:
    return f"SPDXRef-Layer-{number}"


def _package_id(package: BilledPackage) -> str:
    """Return the SPDX identifier of a package, made unique by its checksum.

    It has letters, digits, `.` and `-` only.
    """
    return f"SPDXRef-Package-{_plain(str(package.nevra))}-{package.checksum.short}"


def _source_id(name: str) -> str:
    return f"SPDXRef-Source-{_plain(name)}-{Digest.of(name.encode()).short}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)
