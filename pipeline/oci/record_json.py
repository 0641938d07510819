"""Encode and parse the record of a build's inputs (`BuildRecord`) as canonical JSON.

Each record has exactly one encoding, as in `pipeline.oci.bill_json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import RelbuildError, VerificationError
from pipeline.model.bill import BuildRecord
from pipeline.model.json_form import extends, is_canonical, read_json, refuse_newer
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.oci.image_manifest import JsonReader

FORMAT = 1
"""Format of the document, raised when an older reader would misread it; a newer one is refused by name."""

RECORD_LIMIT = 32 << 20
"""Bytes of a record: ten thousand packages need about four million."""

_AGAIN = "build the image again with `relbuild build`"


def record_bytes(record: BuildRecord) -> bytes:
    """Encode a record as canonical JSON.

    Unknown times are left out, and failed scriptlets if there are none.
    """
    told = record.provenance
    times = {"started": told.started, "finished": told.finished}
    return canonical_json(
        {
            "format": FORMAT,
            "image": str(record.image),
            "checks": str(record.checks),
            "recipe": _material_json(told.recipe),
            "materials": [_material_json(one) for one in told.materials],
            "unknown": list(record.unknown),
            "platform": told.platform,
            "architecture": told.architecture,
            "relbuild": told.builder_version,
            "options": _pairs_json(told.options),
            "versions": _pairs_json(told.versions),
            "invocation": told.invocation,
            **{name: time for name, time in times.items() if time is not None},
            **(
                {"failed_scriptlets": [_failure_json(one) for one in told.failed_scriptlets]}
                if told.failed_scriptlets
                else {}
            ),
        }
    )


def parse_record(data: bytes, place: str) -> BuildRecord:
    """Parse a build record's JSON, named `place` in errors.

    Raises VerificationError `record-malformed`, `format-newer`.
    """
    try:
        document = JsonReader.parse(data, place)
        refuse_newer(place, document.get("format").number(), FORMAT)
        record = _record(document)
    except (RelbuildError, ValueError) as error:
        if isinstance(error, RelbuildError) and error.code == "format-newer":
            raise
        told = error.problems[0].message if isinstance(error, RelbuildError) else str(error)
        raise _malformed(told, place) from error
    if not is_canonical(data) or not extends(json.loads(data), json.loads(record_bytes(record))):
        raise _malformed(f"{place} is not in relbuild's canonical form", place)
    return record


def _malformed(message: str, place: str) -> VerificationError:
    return VerificationError("record-malformed", message, place=place, hint=_AGAIN)


def _record(document: JsonReader) -> BuildRecord:
    return BuildRecord(
        image=Digest.parse(document.get("image").text()),
        provenance=Provenance(
            recipe=_material(document.get("recipe")),
            materials=tuple(_material(one) for one in document.get("materials").items()),
            platform=document.get("platform").text(),
            architecture=document.get("architecture").text(),
            builder_version=document.get("relbuild").text(),
            options=_pairs(document.get("options")),
            versions=_pairs(document.get("versions")),
            invocation=document.get("invocation").text(),
            started=_time(document.get("started")),
            finished=_time(document.get("finished")),
            failed_scriptlets=tuple(_failure(one) for one in document.get("failed_scriptlets").items())
            if not document.get("failed_scriptlets").missing
            else (),
        ),
        checks=Digest.parse(document.get("checks").text()),
        unknown=document.get("unknown").texts(),
    )


def _failure_json(one: ToleratedFailure) -> dict[str, object]:
    """A failed scriptlet without what it printed."""
    return {
        "package": one.package,
        "script": str(one.script),
        "code": one.code,
        **({"status": one.status} if one.status is not None else {}),
        "reason": one.reason,
    }


def _failure(value: JsonReader) -> ToleratedFailure:
    return read_json(ToleratedFailure, json.loads(value.json()))


def _time(value: JsonReader) -> int | None:
    return None if value.missing else value.number()


def _material_json(one: Material) -> dict[str, object]:
    return {"name": one.name, "uri": one.uri, "sha256": one.sha256.hex, "kind": str(one.kind)}


def _material(value: JsonReader) -> Material:
    return Material(
        name=value.get("name").text(),
        uri=value.get("uri").text(),
        sha256=Digest(value.get("sha256").text()),
        kind=MaterialKind(value.get("kind").text()),
    )


def _pairs_json(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [[name, value] for name, value in pairs]


def _pairs(value: JsonReader) -> tuple[tuple[str, str], ...]:
    found = []
    for one in value.items():
        name, text = one.texts()  # ValueError for another count
        found.append((name, text))
    return tuple(found)
