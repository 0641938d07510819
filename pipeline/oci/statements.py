"""Encode and parse in-toto statements; encode an image's provenance as an SLSA predicate.

in-toto attestation framework (statement.md v1), SLSA v1.0 (provenance.md).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import field

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.provenance import AttestedBuild, Material, MaterialKind, Provenance
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.oci.image_manifest import JsonReader, timestamp

STATEMENT_V1 = "https://in-toto.io/Statement/v1"
STATEMENT_TYPES = (STATEMENT_V1, "https://in-toto.io/Statement/v0.1")
"""Accepted types: `cosign attest` still writes the older one, which differs in nothing that is read here."""

BUILD_TYPE = "https://relbuild.org/build/v1"
"""The buildType: identifies relbuild's build of an image from a recipe, and the meaning of its parameters."""

BUILDER = "https://relbuild.org/builder/workstation/v1"
"""The builder's identifier: relbuild on any machine. Whoever has the key could have written anything, so it claims only
level 1 of SLSA's build track (provenance exists; nothing prevents the builder from forging it)."""

SUBJECT_LIMIT = 1000
"""Subjects of a parsed statement, at most: usual are one image, or the images of an index."""


@dataclass(frozen=True, slots=True)
class StatementSubject:
    """A subject of a statement, by digest. `name` is for people, and may be empty."""

    digest: Digest
    name: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement about subjects. `predicate` is JSON text of type `predicate_type`.

    `signer`: the fingerprint of the key whose signature of it was verified, None if none was.
    """

    predicate_type: str
    subjects: tuple[StatementSubject, ...]
    predicate: bytes = field(default=b"{}", repr=False)
    signer: Digest | None = field(default=None, compare=False)


def statement_bytes(statement: Statement) -> bytes:
    """Encode a statement to the bytes to sign.

    The predicate is included byte for byte, because an SBOM can have tens of MiB.

    Raises ValueError if the predicate is not a JSON object.
    """
    if not isinstance(json.loads(statement.predicate, parse_constant=_no_constant), dict):
        raise ValueError("the predicate must be a JSON object")
    subjects = [
        {"digest": {"sha256": subject.digest.hex}, **({"name": subject.name} if subject.name else {})}
        for subject in statement.subjects
    ]
    head = canonical_json({"_type": STATEMENT_V1})
    tail = canonical_json({"predicateType": statement.predicate_type, "subject": subjects})
    return head[:-1] + b',"predicate":' + statement.predicate + b"," + tail[1:]


def read_statement(data: bytes, place: str = "statement") -> Statement:
    """Parse a statement from its signed bytes.

    Its predicate is encoded as canonical JSON again. Subjects without a sha256 are skipped. Raises VerificationError
    `document-malformed`.
    """
    document = JsonReader.parse(data, place)
    kind = document.get("_type").text()
    if kind not in STATEMENT_TYPES:
        raise VerificationError("document-malformed", f"'{kind[:80]}' is not an in-toto statement", place=place)
    subjects = document.get("subject").items()
    if len(subjects) > SUBJECT_LIMIT:
        raise VerificationError("document-malformed", f"more than {SUBJECT_LIMIT} subjects", place=place)
    found = []
    for subject in subjects:
        text = subject.get("digest").get("sha256").text("")
        if text:
            found.append(StatementSubject(Digest(text), subject.get("name").text("")))
    return Statement(document.get("predicateType").text(), tuple(found), document.get("predicate").json())


def provenance_predicate(provenance: Provenance) -> bytes:
    """Encode a provenance as an SLSA predicate (canonical JSON), with times only if it has them.

    The parameters name what was requested; the resolved dependencies have the digests, as the specification requires.
    Scriptlets that failed are byproducts.
    """
    dependencies = (provenance.recipe, *provenance.materials)
    metadata = {
        "invocationId": provenance.invocation,
        "startedOn": None if provenance.started is None else timestamp(provenance.started),
        "finishedOn": None if provenance.finished is None else timestamp(provenance.finished),
    }
    said = {name: value for name, value in metadata.items() if value}
    failed = provenance.failed_scriptlets
    return canonical_json(
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": provenance.recipe.uri or provenance.recipe.name,
                    "platform": provenance.platform,
                    "architecture": provenance.architecture,
                    "options": dict(provenance.options),
                },
                "internalParameters": {"versions": dict(provenance.versions)},
                "resolvedDependencies": [_resource(material) for material in _sorted(dependencies)],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"relbuild": provenance.builder_version},
                },
                **({"metadata": said} if said else {}),
                **({"byproducts": [_failed(one) for one in failed]} if failed else {}),
            },
        }
    )


def read_attested_build(statement: Statement) -> AttestedBuild | None:
    """Read who built what from a verified provenance statement.

    None if it was not verified, or is no SLSA provenance v1 as its specification has it: cosign attests anything.
    """
    if statement.signer is None:
        return None
    try:
        document = JsonReader.parse(statement.predicate, "provenance")
        build, run = document.get("buildDefinition"), document.get("runDetails")
        asked, metadata = build.get("externalParameters"), run.get("metadata")
        if asked.missing:
            return None
        recipe, lock = _recipe_and_lock(build, _text(asked, "recipe"))
        versions = run.get("builder").get("version").members()
        return AttestedBuild(
            signer=statement.signer,
            builder=run.get("builder").get("id").text(),
            build_type=build.get("buildType").text(""),
            versions=tuple(sorted((name, value.text()) for name, value in versions.items())),
            platform=_text(asked, "platform"),
            architecture=_text(asked, "architecture"),
            recipe=recipe,
            lock=lock,
            started="" if metadata.missing else metadata.get("startedOn").text(""),
            finished="" if metadata.missing else metadata.get("finishedOn").text(""),
        )
    except (VerificationError, ValueError):
        return None


def _text(value: JsonReader, key: str) -> str:
    """Return a parameter if it is a string, else ""; other builders have other values."""
    try:
        return value.get(key).text("")
    except VerificationError:
        return ""


def _recipe_and_lock(build: JsonReader, recipe: str) -> tuple[Material | None, Material | None]:
    """Return the recipe that was asked for, and the lock, of the resolved dependencies."""
    found: dict[MaterialKind, Material] = {}
    for one in build.get("resolvedDependencies").items():
        kind = "" if one.get("annotations").missing else _text(one.get("annotations"), "kind")
        if kind not in (MaterialKind.RECIPE, MaterialKind.LOCK):
            continue
        digest = Digest(one.get("digest").get("sha256").text())
        material = Material(one.get("name").text(""), one.get("uri").text(""), digest, MaterialKind(kind))
        if material.kind is MaterialKind.LOCK or recipe in (material.uri, material.name):
            found.setdefault(material.kind, material)
    return found.get(MaterialKind.RECIPE), found.get(MaterialKind.LOCK)


def _sorted(materials: Sequence[Material]) -> list[Material]:
    return sorted(materials, key=lambda material: (material.kind, material.name, material.uri, material.sha256.hex))


def _resource(material: Material) -> dict[str, object]:
    """Return in-toto's ResourceDescriptor of a material (resource_descriptor.md)."""
    return {
        "name": material.name,
        **({"uri": material.uri} if material.uri else {}),
        "digest": {"sha256": material.sha256.hex},
        "annotations": {"kind": material.kind.value},
    }


def _failed(one: ToleratedFailure) -> dict[str, object]:
    """A scriptlet that failed, as a ResourceDescriptor: its outcome is the content."""
    return {
        "name": f"%{one.script} of {one.package}",
        "mediaType": "text/plain",
        "content": base64.b64encode(one.outcome.encode()).decode(),
        "annotations": {"kind": "failed-scriptlet", **({"waived": one.reason} if one.reason else {})},
    }


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
