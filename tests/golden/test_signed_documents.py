"""The very bytes of what is signed and attested: other bytes would be uploaded anew for every image there is.

RELBUILD_REGENERATE=1 writes what they are now; look at the difference before it is committed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.model.image import Descriptor
from pipeline.oci import (
    Statement,
    StatementSubject,
    make_attestation,
    make_listed_attestation,
    make_simple_signature,
    media_types,
    provenance_predicate,
)
from pipeline.oci.predicates import PROVENANCE, SIGN
from tests.support.signing_examples import PROVENANCE_VALUE, signing_key

FOLDER = Path(__file__).parent / "oci"

IMAGE = Descriptor(media_types.MANIFEST, Digest.of(b"an image"), 8)
SUBJECTS = (StatementSubject(IMAGE.digest, "tiny"),)

ARTIFACTS = {
    "simple-signature": make_simple_signature(IMAGE.digest, "mirror.example/tiny", signing_key()),
    "signature": make_attestation(Statement(SIGN, SUBJECTS), IMAGE, signing_key(), 1_700_000_000),
    "listed-signature": make_listed_attestation(Statement(SIGN, SUBJECTS), IMAGE, signing_key(), 1_700_000_000),
    "provenance": make_attestation(
        Statement(PROVENANCE, SUBJECTS, provenance_predicate(PROVENANCE_VALUE)), IMAGE, signing_key(), 1_700_000_000
    ),
}


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_what_is_signed_is_byte_for_byte_what_it_was(name: str) -> None:
    made = ARTIFACTS[name]
    said = {
        "manifest": {"digest": str(made.manifest.digest), "document": json.loads(made.manifest.data)},
        "blobs": [{"digest": str(descriptor.digest), "document": json.loads(data)} for descriptor, data in made.blobs],
    }
    path = FOLDER / f"{name}.json"
    if os.environ.get("RELBUILD_REGENERATE"):
        path.write_text(json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert said == json.loads(path.read_text(encoding="utf-8"))
