"""Make an SPDX 2.3 document (JSON value) from a bill of materials, and validate documents.

https://spdx.github.io/spdx-spec/v2.3/

The document describes the image, a package that contains its layers, which contain the RPMs, each generated from
its source package. Licences are those that the headers declare; none are concluded. Only this module and `licences`
import `spdx_tools`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from license_expression import LicenseExpression
from packageurl import PackageURL
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.parser.error import SPDXParsingError
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from pipeline.digest import Digest
from pipeline.model.bill import Bill, BilledLayer, BilledPackage
from pipeline.oci.licences import licence_expression, licence_references, own_licence
from pipeline.oci.purl import image_url, package_url, source_url

SPDX_VERSION = "SPDX-2.3"
_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_WEB = re.compile(r"https?://[A-Za-z0-9]+([.-][A-Za-z0-9]+)*\.[A-Za-z]{2,}(:[0-9]{1,5})?(/[!-~]*)?")
"""Home pages that are valid URIs for the specification and its validator: with a domain."""


def spdx_value(bill: Bill, namespace: str, tool: str) -> object:
    """Return the SPDX document of a bill as a JSON value.

    `namespace`: its unique URI; `tool`: name and version of the program that makes it.
    """
    document = Document(
        creation_info=CreationInfo(
            spdx_version=SPDX_VERSION,
            spdx_id=_DOCUMENT,
            name=f"{bill.name}-{bill.version}",
            document_namespace=namespace,
            creators=[Actor(ActorType.TOOL, tool)],
            created=datetime.fromtimestamp(bill.created, UTC).replace(tzinfo=None),
        ),
        packages=[
            _image(bill),
            *(_layer(number, layer) for number, layer in enumerate(bill.layers)),
            *(_package(package) for package in bill.packages),
            *(_source(name, vendor) for name, vendor in _sources(bill)),
        ],
        relationships=list(_relationships(bill)),
        extracted_licensing_info=list(_own_licences(bill)),
    )
    value: object = DocumentConverter().convert(document)  # type: ignore[no-untyped-call]
    return value


def spdx_problems(text: str) -> list[str]:
    """Validate a document with the specification's own validator; return the problems as texts."""
    try:
        document = JsonLikeDictParser().parse(json.loads(text))  # type: ignore[no-untyped-call]
    except SPDXParsingError as error:
        return [str(message) for message in error.messages]
    return [message.validation_message for message in validate_full_spdx_document(document, SPDX_VERSION)]


# --- packages --------------------------------------------------------------------------------------------


def _image(bill: Bill) -> Package:
    return Package(
        spdx_id=_IMAGE,
        name=bill.name,
        version=bill.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[_sha256(bill.digest)],
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        comment=f"The checksum is the manifest's; the config is {bill.config}.",
        external_references=[_purl(image_url(bill.name, bill.digest, bill.architecture))],
        primary_package_purpose=PackagePurpose.CONTAINER,
    )


def _layer(number: int, layer: BilledLayer) -> Package:
    return Package(
        spdx_id=_layer_id(number),
        name=layer.name,
        version=str(layer.digest),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[_sha256(Digest(layer.digest.hex))],
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        comment=f"A layer of the image; its diff_id is {layer.diff_id}.",
        primary_package_purpose=PackagePurpose.ARCHIVE,
    )


def _package(package: BilledPackage) -> Package:
    nevra = package.nevra
    fixes = f" Its changelog names {', '.join(package.fixes)}." if package.fixes else ""
    return Package(
        spdx_id=_package_id(package),
        name=nevra.name,
        version=nevra.evr,
        file_name=f"{nevra.name}-{nevra.version}-{nevra.release}.{nevra.arch}.rpm",
        supplier=_supplier(package.vendor),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[_sha256(package.checksum)],
        homepage=package.url if _WEB.fullmatch(package.url) else None,
        source_info=f"From the repository '{package.repository}'.{fixes}",
        license_concluded=SpdxNoAssertion(),
        license_declared=_declared(package.license),
        copyright_text=SpdxNoAssertion(),
        summary=package.summary or None,
        external_references=[_purl(package_url(nevra, package.vendor, package.source_rpm))],
    )


def _source(name: str, vendor: str) -> Package:
    url = source_url(name, vendor)
    return Package(
        spdx_id=_source_id(name),
        name=(url.name if url else "") or name,
        version=url.version if url else None,
        file_name=name,
        supplier=_supplier(vendor),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        external_references=[_purl(url)] if url else [],
        primary_package_purpose=PackagePurpose.SOURCE,
    )


def _sources(bill: Bill) -> list[tuple[str, str]]:
    """Return each source package once, with the vendor of the first package built from it."""
    found: dict[str, str] = {}
    for package in bill.packages:
        if package.source_rpm:
            found.setdefault(package.source_rpm, package.vendor)
    return sorted(found.items())


# --- relationships ---------------------------------------------------------------------------------------


def _relationships(bill: Bill) -> Iterator[Relationship]:
    yield Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE)
    layers = {layer.name: _layer_id(number) for number, layer in enumerate(bill.layers)}
    for layer in layers.values():
        yield Relationship(_IMAGE, RelationshipType.CONTAINS, layer)
    for package in bill.packages:
        yield Relationship(layers.get(package.layer, _IMAGE), RelationshipType.CONTAINS, _package_id(package))
    for package in bill.packages:
        if package.source_rpm:
            source = _source_id(package.source_rpm)
            yield Relationship(_package_id(package), RelationshipType.GENERATED_FROM, source)


def _own_licences(bill: Bill) -> Iterator[ExtractedLicensingInfo]:
    """Yield the required information on every `LicenseRef-` in the document."""
    tags = {package.license for package in bill.packages if package.license.strip()}
    said = {str(own_licence(tag)): (tag, _NO_EXPRESSION) for tag in tags if licence_expression(tag) is None}
    said |= {name: (name, _NAMED_ONLY) for tag in tags for name in licence_references(tag)}
    for name, (text, comment) in sorted(said.items()):
        yield ExtractedLicensingInfo(license_id=name, extracted_text=text, license_name=text[:200], comment=comment)


_NO_EXPRESSION = "What the package's License tag says; it is no SPDX licence expression."
_NAMED_ONLY = "A distribution's name for a licence; its text is in the package, and not here."


def _declared(tag: str) -> LicenseExpression | SpdxNoAssertion:
    if not tag.strip():
        return SpdxNoAssertion()
    parsed = licence_expression(tag)  # has no truth value
    return own_licence(tag) if parsed is None else parsed


def _supplier(vendor: str) -> Actor | SpdxNoAssertion:
    """Return the vendor on one line without parentheses, which in the format mean an address."""
    name = " ".join(vendor.split()).translate(str.maketrans("()", "[]"))
    return Actor(ActorType.ORGANIZATION, name) if name else SpdxNoAssertion()


def _sha256(digest: Digest) -> Checksum:
    return Checksum(ChecksumAlgorithm.SHA256, digest.hex)


def _purl(url: PackageURL) -> ExternalPackageRef:
    return ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", url.to_string())


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
