"""Encode and parse a bill of materials (`Bill`) as canonical JSON.

Each bill has exactly one encoding: parsed bytes must equal what would be written, so that duplicate keys or another
order are refused. Keys of a later release are ignored.
"""

from __future__ import annotations

import json

from pipeline.digest import DiffId, Digest, canonical_json
from pipeline.errors import RelbuildError, VerificationError
from pipeline.model.bill import Bill, BilledLayer, BilledPackage, Privileged
from pipeline.model.json_form import extends, is_canonical, refuse_newer
from pipeline.model.package import Nevra
from pipeline.oci.image_manifest import JsonReader

FORMAT = 1
"""Format of the document, raised when an older reader would misread it; a newer one is refused by name."""

BILL_LIMIT = 32 << 20
"""Bytes of a bill: ten thousand packages need about eight million."""

TIME_MOST = (1 << 32) - 1
"""Latest time, in seconds since the epoch: an image's is the newest RPMTAG_BUILDTIME, which has 32 bits."""

_AGAIN = "build the image again with `relbuild build`"


def bill_bytes(bill: Bill) -> bytes:
    """Encode a bill as canonical JSON."""
    return canonical_json(
        {
            "format": FORMAT,
            "image": {
                "name": bill.name,
                "version": bill.version,
                "digest": str(bill.digest),
                "config": str(bill.config),
                "created": bill.created,
                "architecture": bill.architecture,
            },
            "layers": [_layer_json(layer) for layer in bill.layers],
            "packages": [_package_json(package) for package in bill.packages],
            "privileged": [_privileged_json(one) for one in bill.privileged],
        }
    )


def parse_bill(data: bytes, place: str) -> Bill:
    """Parse a bill's JSON, named `place` in errors.

    Raises VerificationError `bill-malformed`, `format-newer`.
    """
    try:
        document = JsonReader.parse(data, place)
        refuse_newer(place, document.get("format").number(), FORMAT)
        bill = _bill(document)
    except (RelbuildError, ValueError) as error:
        if isinstance(error, RelbuildError) and error.code == "format-newer":
            raise
        told = error.problems[0].message if isinstance(error, RelbuildError) else str(error)
        raise _malformed(told, place) from error
    if not is_canonical(data) or not extends(json.loads(data), json.loads(bill_bytes(bill))):
        raise _malformed(f"{place} is not in relbuild's canonical form", place)
    return bill


def _malformed(message: str, place: str) -> VerificationError:
    return VerificationError("bill-malformed", message, place=place, hint=_AGAIN)


def _layer_json(layer: BilledLayer) -> dict[str, object]:
    return {"name": layer.name, "diff_id": str(layer.diff_id), "digest": str(layer.digest), "size": layer.size}


def _package_json(package: BilledPackage) -> dict[str, object]:
    return {
        "nevra": str(package.nevra),
        "sha256": package.checksum.hex,
        "size": package.size,
        "license": package.license,
        "vendor": package.vendor,
        "url": package.url,
        "summary": package.summary,
        "source_rpm": package.source_rpm,
        "repository": package.repository,
        "layer": package.layer,
        "fixes": list(package.fixes),
    }


def _privileged_json(one: Privileged) -> dict[str, object]:
    return {
        "path": one.path,
        "mode": f"{one.mode:04o}",
        "package": one.package,
        "capabilities": one.capabilities,
    }


def _bill(document: JsonReader) -> Bill:
    image = document.get("image")
    if image.get("created").number() > TIME_MOST:
        raise VerificationError("bill-malformed", "the image's creation time exceeds the range of rpm's build times")
    return Bill(
        name=image.get("name").text(),
        version=image.get("version").text(),
        digest=Digest.parse(image.get("digest").text()),
        config=Digest.parse(image.get("config").text()),
        created=image.get("created").number(),
        architecture=image.get("architecture").text(),
        layers=tuple(
            BilledLayer(
                name=one.get("name").text(),
                diff_id=DiffId.parse(one.get("diff_id").text()),
                digest=Digest.parse(one.get("digest").text()),
                size=one.get("size").number(),
            )
            for one in document.get("layers").items()
        ),
        packages=tuple(_package(one) for one in document.get("packages").items()),
        privileged=tuple(_privileged(one) for one in document.get("privileged").items()),
    )


def _package(one: JsonReader) -> BilledPackage:
    return BilledPackage(
        nevra=Nevra.parse(one.get("nevra").text()),
        checksum=Digest(one.get("sha256").text()),
        size=one.get("size").number(),
        license=one.get("license").text(),
        vendor=one.get("vendor").text(),
        url=one.get("url").text(),
        summary=one.get("summary").text(),
        source_rpm=one.get("source_rpm").text(),
        repository=one.get("repository").text(),
        layer=one.get("layer").text(),
        fixes=one.get("fixes").texts(),
    )


def _privileged(one: JsonReader) -> Privileged:
    mode = one.get("mode").text()
    if not (mode.isascii() and mode.isdigit() and set(mode) <= set("01234567")):
        raise VerificationError("bill-malformed", f"'{mode[:20]}' is not an octal mode")
    return Privileged(
        path=one.get("path").text(),
        mode=int(mode, 8),
        package=one.get("package").text(),
        capabilities=one.get("capabilities").text(),
    )
