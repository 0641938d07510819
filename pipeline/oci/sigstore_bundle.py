"""Sign statements as Sigstore bundles that refer to an image, and verify bundles by key.

protobuf-specs, sigstore_bundle.proto, v0.3. Newer cosign and other sigstore clients read bundles.

A bundle made here has no certificate and no transparency log entry, only a hint that names its key; verifiers need
`--insecure-ignore-tlog`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import media_types
from pipeline.oci.artifacts import make_referrer, read_artifact
from pipeline.oci.dsse import (
    Envelope,
    envelope_json,
    read_envelope,
    sign_envelope,
)
from pipeline.oci.image_manifest import JsonReader, timestamp
from pipeline.oci.signing_keys import WRONG_KEY_HINT, SigningKey, VerifyingKey
from pipeline.oci.statements import Statement, read_statement, statement_bytes

CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
PREDICATE_TYPE_ANNOTATION = "dev.sigstore.bundle.predicateType"
"""Annotations by which cosign selects bundles without reading them."""

BUNDLE_TYPES = (media_types.SIGSTORE_BUNDLE, "application/vnd.dev.sigstore.bundle+json;version=0.3")
"""Media types of a bundle of v0.3 (the specification has both)."""

BUNDLE_LIMIT = 64 << 20
"""Bytes of a bundle. The statement in it is base64, so SBOMs up to 48 MiB fit: those of some 20,000 packages."""

BUNDLE_NODE_LIMIT = 10_000
"""JSON values in a bundle, which is parsed before anything of it is verified: it has ten, with log entries and
certificates some hundred. The statement in it is one string."""

FINGERPRINT_BYTES = 32
"""Bytes of a key's fingerprint, a SHA-256."""


def make_bundle(statement: Statement, key: SigningKey) -> bytes:
    """Sign a statement and return the bundle.

    The same statement and key always give the same bytes.
    """
    return _bundle(sign_envelope(media_types.IN_TOTO, statement_bytes(statement), key), key.public)


def _bundle(envelope: Envelope, key: VerifyingKey) -> bytes:
    return canonical_json(
        {
            "mediaType": media_types.SIGSTORE_BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": key.hint}},
            "dsseEnvelope": envelope_json(envelope),
        }
    )


def make_attestation(
    statement: Statement,
    subject: Descriptor,
    key: SigningKey,
    created: int | None = None,
    annotations: Mapping[str, str] | None = None,
    *,
    signature_annotation: str | None = None,
) -> Artifact:
    """Sign a statement and return it as a referrer of `subject`.

    `created`: the image's creation time, in seconds since the epoch; not the present time, which would give another
    manifest each time. `annotations`: the manifest's, besides those of a bundle; `signature_annotation` is the name of
    one that gets the signature, in base64.

    Raises VerificationError `bundle-too-large`; ValueError if the statement is not about `subject`.
    """
    if subject.digest not in {named.digest for named in statement.subjects}:
        raise ValueError(f"the statement is not about {subject.digest}")
    envelope = sign_envelope(media_types.IN_TOTO, statement_bytes(statement), key)
    notes = dict(annotations or {})
    if created is not None:
        notes[media_types.CREATED] = timestamp(created)
    if signature_annotation is not None:
        notes[signature_annotation] = base64.b64encode(envelope.signatures[0]).decode()
    return _attestation(envelope, statement, subject, key.public, notes)


def remade_attestation(
    statement: Statement, subject: Descriptor, key: VerifyingKey, annotations: Mapping[str, str], signature: bytes
) -> Artifact | None:
    """Make again what `make_attestation` made; None if `key` did not sign the statement.

    `annotations`: those besides a bundle's, also that with the signature.
    """
    envelope = Envelope(media_types.IN_TOTO, statement_bytes(statement), (signature,))
    signer = next((each for each in key.each if envelope.signed_by(each)), None)
    return _attestation(envelope, statement, subject, signer, annotations) if signer is not None else None


def _attestation(
    envelope: Envelope, statement: Statement, subject: Descriptor, key: VerifyingKey, annotations: Mapping[str, str]
) -> Artifact:
    data = _bundle(envelope, key)
    if len(data) > BUNDLE_LIMIT:
        raise VerificationError(
            "bundle-too-large",
            f"the attestation {statement.predicate_type} has {len(data) >> 20} MiB; verifiers read "
            f"{BUNDLE_LIMIT >> 20} MiB at most",
            place=str(subject.digest),
        )
    notes = {
        **annotations,
        CONTENT_ANNOTATION: "dsse-envelope",
        PREDICATE_TYPE_ANNOTATION: statement.predicate_type,
    }
    return make_referrer(media_types.SIGSTORE_BUNDLE, [(media_types.SIGSTORE_BUNDLE, data)], subject, notes)


def bundle_layer(manifest: Manifest) -> Descriptor:
    """Return the descriptor of the bundle in a referrer's manifest.

    Raises VerificationError `bundle-malformed` unless it has exactly one bundle of an acceptable size.
    """
    try:
        said = read_artifact(manifest)
    except VerificationError as error:
        raise _malformed(manifest, error.problems[0].message) from error
    if said.artifact_type not in BUNDLE_TYPES or len(said.layers) != 1 or said.layers[0].media_type not in BUNDLE_TYPES:
        raise _malformed(
            manifest, f"an artifact of type {said.artifact_type[:80]} with {len(said.layers)} layers is not a bundle"
        )
    if said.layers[0].size > BUNDLE_LIMIT:
        raise _malformed(manifest, f"the bundle exceeds {BUNDLE_LIMIT >> 20} MiB")
    return said.layers[0]


def verify_bundle(manifest: Manifest, blob: bytes, subject: Digest, key: VerifyingKey) -> Statement:
    """Verify that a referrer's bundle is about `subject` and signed by `key`; return it parsed.

    `blob`: the bundle's bytes. The statement names its signer.

    Raises VerificationError: `bundle-malformed`, `signature-of-another` (made for another image),
    `signature-wrong-key`, `signature-altered` (the bundle names this key and does not verify, or does not match the
    manifest's digest), `predicate-mismatch` (the manifest's annotation differs from the signed predicate type).
    """
    layer = bundle_layer(manifest)
    said = read_artifact(manifest)
    place = f"attestation {manifest.digest.short}"
    if said.subject is None or said.subject.digest != subject:
        other = "nothing" if said.subject is None else str(said.subject.digest)
        raise _moved(f"the manifest's subject is {other}, not {subject}", place)
    if len(blob) != layer.size or Digest.of(blob) != layer.digest:
        raise VerificationError(
            "signature-altered", "the bundle does not match the digest in the manifest", place=place
        )
    try:
        envelope, hint = _read_bundle(blob)
    except VerificationError as error:
        raise _malformed(manifest, error.problems[0].message) from error
    signer = _signer(envelope, hint, key, place)
    try:
        statement = read_statement(envelope.payload)
    except VerificationError as error:
        raise _malformed(manifest, error.problems[0].message) from error
    if subject not in {named.digest for named in statement.subjects}:
        named = ", ".join(str(one.digest) for one in statement.subjects[:3]) or "nothing"
        raise _moved(f"the signed statement is for {named}, not for {subject}", place)
    annotated = said.annotation(PREDICATE_TYPE_ANNOTATION)
    if annotated and annotated != statement.predicate_type:
        raise VerificationError(
            "predicate-mismatch",
            f"the manifest declares {annotated[:80]}, but the signed predicate is {statement.predicate_type[:80]}",
            place=place,
            hint="the manifest's annotation was changed; publish it again",
        )
    return replace(statement, signer=signer)


def unverified_statement(blob: bytes) -> Statement:
    """Return the statement in a bundle without verification, for callers without a key.

    Raises VerificationError `bundle-malformed`, `document-malformed`.
    """
    return read_statement(_read_bundle(blob)[0].payload)


def named_key(blob: bytes) -> Digest | None:
    """Return the fingerprint of the key that a bundle names, unverified; None if it names none.

    Raises VerificationError `bundle-malformed`, `document-malformed`.
    """
    try:
        fingerprint = base64.b64decode(_read_bundle(blob)[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Digest(fingerprint.hex()) if len(fingerprint) == FINGERPRINT_BYTES else None


def _read_bundle(blob: bytes) -> tuple[Envelope, str]:
    """Parse a bundle; return its envelope and its key's hint ("": it has none)."""
    if blob.count(b"[") + blob.count(b"{") + blob.count(b",") > BUNDLE_NODE_LIMIT:
        raise VerificationError("bundle-malformed", f"the bundle has more than {BUNDLE_NODE_LIMIT} values")
    document = JsonReader.parse(blob, "bundle")
    kind = document.get("mediaType").text()
    if kind not in BUNDLE_TYPES:
        raise VerificationError("bundle-malformed", f"'{kind[:80]}' is not a Sigstore bundle v0.3")
    sealed = document.get("dsseEnvelope")
    if sealed.missing:
        raise VerificationError("bundle-malformed", "the bundle has no DSSE envelope")
    envelope = read_envelope(sealed)
    if envelope.payload_type != media_types.IN_TOTO or len(envelope.signatures) != 1:
        raise VerificationError(
            "bundle-malformed",
            f"the envelope must have one signed in-toto "
            f"statement; it has {envelope.payload_type[:80]} with {len(envelope.signatures)} signatures",
        )
    public = document.get("verificationMaterial").get("publicKey")
    return envelope, "" if public.missing else public.get("hint").text("")


def _signer(envelope: Envelope, hint: str, key: VerifyingKey, place: str) -> Digest:
    """Return the fingerprint of that of the keys which signed the envelope."""
    for one in key.each:
        if envelope.signed_by(one):
            return one.fingerprint
    named = next((one for one in key.each if one.hint == hint), None)
    if named is not None:
        raise VerificationError(
            "signature-altered",
            f"the bundle names the key {named.fingerprint.short}, but the signature does not verify",
            place=place,
            hint="the content or the signature was changed; publish it again",
        )
    raise VerificationError(
        "signature-wrong-key",
        f"the bundle is not signed by the key {key.fingerprint.short}",
        place=place,
        hint=WRONG_KEY_HINT,
    )


def _malformed(manifest: Manifest, message: str) -> VerificationError:
    return VerificationError("bundle-malformed", message, place=f"attestation {manifest.digest.short}")


def _moved(message: str, place: str) -> VerificationError:
    return VerificationError(
        "signature-of-another",
        f"{message}: it was copied from another image",
        place=place,
        hint="pull from the mirror it was published to",
    )
