"""Attestations whose entry in a list of referrers proves by itself which key made them.

A list has a referrer's digest and its annotations (distribution-spec 1.1, "Listing Referrers"). Two annotations more
than cosign needs hold what else is in the manifest, and a signature of the manifest without that signature. So a
verifier makes the manifest again, compares its digest with the listed one, and knows who signed it before anything is
read.
"""

from __future__ import annotations

import base64
import binascii

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest, Referrer
from pipeline.oci import media_types
from pipeline.oci.artifacts import read_artifact, referrer_manifest
from pipeline.oci.dsse import pre_authentication
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.signing_keys import SigningKey, VerifyingKey
from pipeline.oci.sigstore_bundle import bundle_layer, make_attestation
from pipeline.oci.statements import Statement

CONTENT = "org.relbuild.attestation.content"
"""Annotation: JSON with the descriptors of bundle and subject."""

SIGNATURE = "org.relbuild.attestation.signature"
"""Annotation: the signature of the manifest without this annotation, in base64."""

_SIGNED_TYPE = "application/vnd.relbuild.attestation-manifest.v1+json"
"""Type in what is signed (DSSE's PAE), so that it is no signature of anything else."""


def make_listed_attestation(statement: Statement, subject: Descriptor, key: SigningKey, created: int) -> Artifact:
    """Sign a statement as `make_attestation` does, and its manifest too.

    The same statement and key always give the same bytes. Raises as `make_attestation`.
    """
    made = make_attestation(statement, subject, key, created)
    said = read_artifact(made.manifest)
    bundle = bundle_layer(made.manifest)
    about = Descriptor(subject.media_type, subject.digest, subject.size)
    content = canonical_json({"bundle": descriptor_json(bundle), "subject": descriptor_json(about)}).decode()
    notes = {**dict(said.annotations), CONTENT: content}
    signature = key.sign(_signed(bundle, about, notes))
    notes[SIGNATURE] = base64.b64encode(signature).decode()
    return Artifact(_manifest(bundle, about, notes), made.blobs)


def proves_itself(listed: Referrer, subject: Digest, key: VerifyingKey) -> bool:
    """Return whether a list's entry is of an attestation of `subject` that `key` made.

    True only if the entry has everything that is in the manifest of its digest, and the signature is valid. Nobody
    without the key can make another entry of which that is true.
    """
    notes = dict(listed.descriptor.annotations)
    try:
        content = JsonReader.parse(notes.get(CONTENT, "").encode(), "entry")
        bundle, about = content.get("bundle").descriptor(), content.get("subject").descriptor()
        if about.digest != subject or _manifest(bundle, about, notes).digest != listed.descriptor.digest:
            return False
        encoded = notes.pop(SIGNATURE, "")
        signature = base64.b64decode(encoded, validate=True)
        if base64.b64encode(signature).decode() != encoded:  # Other bits that base64 leaves out: another manifest.
            return False
        return key.verifies(signature, _signed(bundle, about, notes))
    except (VerificationError, binascii.Error, ValueError):
        return False


def _manifest(bundle: Descriptor, subject: Descriptor, notes: dict[str, str]) -> Manifest:
    return referrer_manifest(media_types.SIGSTORE_BUNDLE, [bundle], subject, notes)


def _signed(bundle: Descriptor, subject: Descriptor, notes: dict[str, str]) -> bytes:
    return pre_authentication(_SIGNED_TYPE, _manifest(bundle, subject, notes).data)
