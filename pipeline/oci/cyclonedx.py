"""Make a CycloneDX 1.6 document (JSON value) from a bill of materials; validate documents.

https://cyclonedx.org/docs/1.6/json/

The image is the document's subject, the RPMs are its components. Properties that begin with `relbuild:` have what
CycloneDX has no member for (layer, source package, repository, vulnerabilities named in a changelog). No other code
imports `cyclonedx`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion

from pipeline.digest import Digest
from pipeline.model.bill import Bill, BilledPackage
from pipeline.oci.licences import licence_expression
from pipeline.oci.purl import image_url, package_url

if TYPE_CHECKING:
    from cyclonedx.validation.json import JsonStrictValidator

_WEB = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+")
"""Home pages that are valid for the specification's `iri-reference`."""


def cyclonedx_value(bill: Bill, serial: UUID, tool: tuple[str, str]) -> object:
    """Return the CycloneDX document of a bill as a JSON value.

    `serial`: its unique identifier; `tool`: name and version of the program that makes it.
    """
    image = _image(bill)
    packages = [_package(package, bill) for package in bill.packages]
    bom = Bom(
        serial_number=serial,
        version=1,
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(bill.created, UTC),
            component=image,
            tools=ToolRepository(components=[Component(name=tool[0], version=tool[1], type=ComponentType.APPLICATION)]),
        ),
        components=packages,
        dependencies=[
            Dependency(image.bom_ref, [Dependency(package.bom_ref) for package in packages]),
            *(Dependency(package.bom_ref) for package in packages),
        ],
    )
    value: object = json.loads(JsonV1Dot6(bom).output_as_string())
    return value


def cyclonedx_problems(text: str) -> list[str]:
    """Validate a document against the specification's strict schema; return its problems."""
    found = _validator().validate_str(text, all_errors=True)
    return [str(problem.data) for problem in found or ()]


@cache
def _validator() -> JsonStrictValidator:
    """Load the validator on first use: its schemas take most of a second."""
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def _image(bill: Bill) -> Component:
    return Component(
        type=ComponentType.CONTAINER,
        name=bill.name,
        version=bill.version,
        bom_ref=str(bill.digest),
        purl=image_url(bill.name, bill.digest, bill.architecture),
        hashes=[_sha256(bill.digest)],
        properties=[
            Property(name="relbuild:config", value=str(bill.config)),
            *(
                Property(name=f"relbuild:layer:{number}", value=f"{layer.name} {layer.digest} {layer.diff_id}")
                for number, layer in enumerate(bill.layers)
            ),
        ],
    )


def _package(package: BilledPackage, bill: Bill) -> Component:
    nevra = package.nevra
    url = package_url(nevra, package.vendor, package.source_rpm)
    return Component(
        type=ComponentType.LIBRARY,
        name=nevra.name,
        version=nevra.evr,
        # The checksum distinguishes two packages of one name and version.
        bom_ref=BomRef(f"{url.to_string()}#{package.checksum.short}"),
        supplier=OrganizationalEntity(name=package.vendor) if package.vendor else None,
        description=package.summary or None,
        hashes=[_sha256(package.checksum)],
        licenses=_licences(package.license),
        purl=url,
        external_references=(
            [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(package.url))]
            if _WEB.fullmatch(package.url)
            else []
        ),
        properties=[Property(name=f"relbuild:{name}", value=value) for name, value in _facts(package, bill)],
    )


def _facts(package: BilledPackage, bill: Bill) -> Iterator[tuple[str, str]]:
    yield "layer", package.layer
    for layer in bill.layers:
        if layer.name == package.layer:
            yield "layer:digest", str(layer.digest)
            yield "layer:diff-id", str(layer.diff_id)
    yield "repository", package.repository
    yield "size", str(package.size)
    if package.source_rpm:
        yield "source-rpm", package.source_rpm
    for fix in package.fixes:
        yield "changelog-names", fix


def _licences(tag: str) -> list[LicenseExpression | DisjunctiveLicense]:
    if not tag.strip():
        return []
    parsed = licence_expression(tag)
    declared = LicenseAcknowledgement.DECLARED
    if parsed is None:
        return [DisjunctiveLicense(name=tag, acknowledgement=declared)]
    return [LicenseExpression(str(parsed), acknowledgement=declared)]


def _sha256(digest: Digest) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest.hex)
