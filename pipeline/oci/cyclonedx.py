"""Make a CycloneDX 1.6 document (JSON value) from a bill of materials; validate documents.

https://cyclonedx.org/docs/1.6/json/

The image is the document's subject, the RPMs are its components. Properties that begin with `relbuild:` have what
CycloneDX has no member for (layer, source package, repository, vulnerabilities named in a changelog). The members are
written here, which takes a tenth of the time that the library takes; it validates. No other code imports `cyclonedx`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from pipeline.digest import Digest
from pipeline.model.bill import Bill, BilledPackage
from pipeline.oci.licences import licence_expression
from pipeline.oci.purl import image_url, package_url

if TYPE_CHECKING:
    from cyclonedx.validation.json import JsonStrictValidator

_WEB = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+")
"""Home pages that are valid for the specification's `iri-reference`."""


_Value = dict[str, object]

_ESCAPED = str.maketrans({one: f"%{ord(one):02X}" for one in " \"'[]<>{}"})
"""Characters of a home page that XML's `anyURI` does not have (and the library escapes so)."""


def cyclonedx_value(bill: Bill, serial: UUID, tool: tuple[str, str]) -> object:
    """Return the CycloneDX document of a bill as a JSON value, its lists sorted.

    `serial`: its unique identifier; `tool`: name and version of the program that makes it.
    """
    packages = sorted(
        (_package(package, bill) for package in bill.packages),
        key=lambda one: (one["name"], one["version"], one["bom-ref"]),
    )
    references = sorted({str(package["bom-ref"]) for package in packages})
    image = str(bill.digest)
    needs: dict[str, list[str]] = {image: references, **{one: [] for one in references}}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial.urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(bill.created, UTC).isoformat(),
            "component": _image(bill),
            "tools": {"components": [{"name": tool[0], "version": tool[1], "type": "application"}]},
        },
        **({"components": packages} if packages else {}),
        "dependencies": [
            {"ref": one, **({"dependsOn": others} if others else {})} for one, others in sorted(needs.items())
        ],
    }


def cyclonedx_problems(text: str) -> list[str]:
    """Validate a document against the specification's strict schema; return its problems."""
    found = _validator().validate_str(text, all_errors=True)
    return [str(problem.data) for problem in found or ()]


@cache
def _validator() -> JsonStrictValidator:
    """Load the validator on first use: its schemas take most of a second."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def _image(bill: Bill) -> _Value:
    layers = enumerate(bill.layers)
    return {
        "type": "container",
        "name": bill.name,
        "version": bill.version,
        "bom-ref": str(bill.digest),
        "purl": image_url(bill.name, bill.digest, bill.architecture).to_string(),
        "hashes": _sha256(bill.digest),
        "properties": _properties(
            [
                ("config", str(bill.config)),
                *((f"layer:{number}", f"{one.name} {one.digest} {one.diff_id}") for number, one in layers),
            ]
        ),
    }


def _package(package: BilledPackage, bill: Bill) -> _Value:
    nevra = package.nevra
    url = package_url(nevra, package.vendor, package.source_rpm).to_string()
    licences = _licences(package.license)
    website = package.url.translate(_ESCAPED) if _WEB.fullmatch(package.url) else ""
    return {
        "type": "library",
        "name": nevra.name,
        "version": nevra.evr,
        # The checksum distinguishes two packages of one name and version.
        "bom-ref": f"{url}#{package.checksum.short}",
        **({"supplier": {"name": package.vendor}} if package.vendor else {}),
        **({"description": package.summary} if package.summary else {}),
        "hashes": _sha256(package.checksum),
        **({"licenses": licences} if licences else {}),
        "purl": url,
        **({"externalReferences": [{"type": "website", "url": website}]} if website else {}),
        "properties": _properties(_facts(package, bill)),
    }


def _properties(facts: Iterable[tuple[str, str]]) -> list[_Value]:
    return [{"name": f"relbuild:{name}", "value": value} for name, value in sorted(set(facts))]


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


def _licences(tag: str) -> list[_Value]:
    if not tag.strip():
        return []
    expression = licence_expression(tag)
    if expression is None:
        return [{"license": {"name": tag, "acknowledgement": "declared"}}]
    return [{"expression": expression, "acknowledgement": "declared"}]


def _sha256(digest: Digest) -> list[_Value]:
    return [{"alg": "SHA-256", "content": digest.hex}]
