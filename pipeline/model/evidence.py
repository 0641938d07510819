"""Data classes for a smoke test's evidence, and its canonical JSON written and read.

A publication rests on it: it names one image, the smoke plan and runtime, the report, and the image's contents. Equal
evidence has the same bytes.
"""

from __future__ import annotations

import json
from functools import lru_cache

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.enforcement import LimitEnforcement, enforcement
from pipeline.model.json_form import extends, is_canonical, read_json, refuse_newer, to_json
from pipeline.model.report import SmokeReport

EVIDENCE_SCHEMA = 2
"""Since 2 it says under `limits` what the kernel held the instances to: found from the readings in the report, which
evidence of schema 1 has as well."""

EVIDENCE_LIMIT = 32 << 20
"""Bytes of an evidence: in base64 inside an attestation it must stay below the 64 MiB that a small blob may have."""

EVIDENCE_TYPE = "https://relbuild.org/smoke/v1"
"""The predicate type of an attestation that carries one (in-toto Statement v1)."""

EVIDENCE_FILE, EVIDENCE_SEAL = "evidence.json", "evidence.seal"
"""Its files in `NAME.report/`: the bytes, and the seal of the store that tested the image."""


@dataclass(frozen=True, slots=True)
class PackageLicense:
    """A package in the image: its NEVRA, and the licence in its header ("": it has none)."""

    nevra: str
    license: str


@dataclass(frozen=True, slots=True)
class PrivilegedFile:
    """A setuid or setgid program in the image, with its permission bits."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of an image that its manifest and config do not tell.

    They are read from the tree that was launched. `packages` sorted by NEVRA, `privileged` by path. `database` is the
    path of the RPM database that names the packages, "" if it has none (or the evidence is older than this field).
    """

    name: str
    version: str
    architecture: str
    packages: tuple[PackageLicense, ...] = ()
    privileged: tuple[PrivilegedFile, ...] = ()
    database: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one smoke test of one image.

    `image`: the manifest's digest; `checks`: the digest of the plan that the recipe asks for; `runtime`: what it was to
    be launched by; `full`: nothing that the recipe asks for was left out (neighbours are, unless asked for).
    """

    image: Digest
    checks: Digest
    runtime: str
    full: bool
    report: SmokeReport
    contents: Contents

    @property
    def limits(self) -> tuple[LimitEnforcement, ...]:
        """The limits asked of the tested instances, and whether the kernel enforced each."""
        return enforcement(self.report)


def evidence_json(evidence: Evidence, schema: int = EVIDENCE_SCHEMA) -> bytes:
    """Write canonical JSON. Raises VerificationError `evidence-too-large`."""
    value = to_json(evidence)
    assert isinstance(value, dict)
    added = {} if schema == 1 else {"limits": [to_json(limit) for limit in evidence.limits]}
    data = canonical_json({"schema": schema, **added, **value})
    if len(data) > EVIDENCE_LIMIT:
        raise VerificationError(
            "evidence-too-large",
            f"the check results of {evidence.image} have {len(data) >> 20} MiB, more than {EVIDENCE_LIMIT >> 20} MiB",
            hint="make checks request shorter responses, or launch fewer instances",
        )
    return data


def read_evidence(data: bytes) -> Evidence:
    """Read what `evidence_json` wrote, in this release or another.

    Members that are not known are passed over.

    Other white space, another order of keys, a key that is there twice, limits that are not what the readings say are
    refused. Raises VerificationError `evidence-malformed`, `evidence-too-large`, `format-newer`.
    """
    if len(data) > EVIDENCE_LIMIT:
        raise VerificationError("evidence-too-large", f"the evidence exceeds the size limit: {len(data)} bytes")
    return _read(data)


@lru_cache(maxsize=2)  # the gate, what it tells of limits, and the attestation read the same bytes
def _read(data: bytes) -> Evidence:
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
        refuse_newer("the evidence of a smoke test", value.get("schema"), EVIDENCE_SCHEMA)
        evidence = read_json(Evidence, value)
        same = is_canonical(data) and _says(value, evidence)
    except (ValueError, RecursionError) as error:
        raise VerificationError("evidence-malformed", f"invalid evidence: {error}") from error
    if not same:
        raise VerificationError("evidence-malformed", "the evidence is not in relbuild's canonical form")
    return evidence


def _says(value: dict[str, object], evidence: Evidence) -> bool:
    """Return whether a document has exactly the values of the evidence that was read from it."""
    limits = value.get("limits")
    derived = [to_json(limit) for limit in evidence.limits]
    stated = limits is None if value["schema"] == 1 else extends(limits, derived)
    return stated and extends(value, to_json(evidence), optional=True)
