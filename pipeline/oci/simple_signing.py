"""Sign images by cosign's simple signing; join and verify signatures of `.sig` manifests.

The oldest kind of cosign signatures, the only one that podman and older cosign read: a manifest under the tag
`sha256-HEX.sig` with one layer for each signature. A layer's content is the signed payload (containers/image, "atomic
container signature", with sigstore's type): the image's digest and its name, the identity. The layer's annotation has
the signature. An image that is copied to another mirror keeps the signatures with its former names, and may get one
with the new name.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import Problem, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import media_types
from pipeline.oci.artifacts import read_artifact
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.signing_keys import WRONG_KEY_HINT, SigningKey, VerifyingKey

SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
"""Annotation of a layer with the signature, in base64."""

SIGNATURE_TYPE = "cosign container image signature"

SIMPLE_SIGNATURES_LIMIT = 200
"""Signatures of one image, at most: usual is one for each signer and mirror."""

PAYLOAD_LIMIT = 64 << 10
"""Bytes of a payload: it has some 250, and what its signer put under `optional`."""


@dataclass(frozen=True, slots=True)
class SimpleSignature:
    """One signature of a signature manifest, checked.

    `digest`: the image's; `identity`: the name under which it is signed; both None for a malformed payload. `problem`:
    why the signature is not valid, or None.
    """

    layer: Descriptor
    digest: Digest | None
    identity: str | None
    problem: Problem | None


def signature_tag(digest: Digest) -> str:
    """Return the tag of the signatures of an image or index: `sha256-HEX.sig`."""
    return f"sha256-{digest.hex}.sig"


def signature_payload(digest: Digest, identity: str) -> bytes:
    """Return the payload to sign, exactly as cosign writes it.

    `identity`: the `HOST/NAME` by which clients pull.
    """
    value = {
        "critical": {
            "identity": {"docker-reference": identity},
            "image": {"docker-manifest-digest": str(digest)},
            "type": SIGNATURE_TYPE,
        },
        "optional": None,
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def make_simple_signature(digest: Digest, identity: str, key: SigningKey, existing: Manifest | None = None) -> Artifact:
    """Sign an image; return the signature manifest for the tag `signature_tag(digest)`.

    `existing` is the present one, whose signatures are kept. If it has this key's signature of the same payload, it is
    returned unchanged, without blobs. Otherwise the blobs are the config and the new payload. Raises VerificationError
    `document-malformed`, `signatures-too-many`.
    """
    payload = signature_payload(digest, identity)
    layers = list(read_artifact(existing).layers) if existing else []
    wanted = Digest.of(payload)
    if existing and any(
        layer.digest == wanted and key.public.verifies(_signature(layer) or b"", payload) for layer in layers
    ):
        return Artifact(existing)
    if len(layers) >= SIMPLE_SIGNATURES_LIMIT:
        raise VerificationError(
            "signatures-too-many",
            f"{digest} already has {len(layers)} signatures; the limit is reached",
            hint=f"remove the tag {signature_tag(digest)} and sign again",
        )
    notes = ((SIGNATURE_ANNOTATION, base64.b64encode(key.sign(payload)).decode()),)
    own = Descriptor(media_types.SIMPLE_SIGNING, wanted, len(payload), notes)
    made = _of_layers([*layers, own])
    plain = Descriptor(own.media_type, own.digest, own.size)
    return Artifact(made.manifest, (*made.blobs, (plain, payload)))


def signature_blobs(manifest: Manifest, digest: Digest, identity: str) -> tuple[tuple[Descriptor, bytes], ...]:
    """Return a signature's payload, and the config of its manifest if that is cosign's."""
    payload = signature_payload(digest, identity)
    said = read_artifact(manifest)
    config = _config(said.layers)
    blobs = [(Descriptor(media_types.SIMPLE_SIGNING, Digest.of(payload), len(payload)), payload)]
    if said.config.digest == Digest.of(config):
        blobs.append((Descriptor(media_types.CONFIG, said.config.digest, len(config)), config))
    return tuple(blobs)


def join_signatures(present: Manifest, more: Manifest) -> Artifact:
    """Return the signature manifest with the signatures of both manifests.

    First those of `present`, then the others of `more`. Its only blob is the config: the payloads are where the two
    manifests are. Raises VerificationError `document-malformed`, `signatures-too-many`.
    """
    layers = list(read_artifact(present).layers)
    missing = [layer for layer in read_artifact(more).layers if layer not in layers]
    if not missing:
        return Artifact(present)
    if len(layers) + len(missing) > SIMPLE_SIGNATURES_LIMIT:
        raise VerificationError("signatures-too-many", f"the image has more than {SIMPLE_SIGNATURES_LIMIT} signatures")
    return _of_layers([*layers, *missing])


def check_signatures(
    manifest: Manifest,
    payloads: Mapping[Digest, bytes],
    subject: Digest,
    key: VerifyingKey,
    identity: str | None = None,
) -> tuple[SimpleSignature, ...]:
    """Check every signature in a signature manifest; return each with its problem, if any.

    It must be a signature of `subject` by `key`, and under the name `identity` (with or without a tag), if that is
    given. `payloads`: digest of a layer → its content, whatever there is in the place of an altered one.

    Raises VerificationError `document-malformed`, `signatures-too-many`. The problems' codes: `signature-malformed`,
    `signature-payload-missing`, `signature-altered`, `signature-wrong-key`, `signature-of-another`,
    `signature-other-identity`.
    """
    layers = read_artifact(manifest).layers
    if len(layers) > SIMPLE_SIGNATURES_LIMIT:
        raise VerificationError(
            "signatures-too-many", f"{subject} has {len(layers)} signatures (at most {SIMPLE_SIGNATURES_LIMIT})"
        )
    return tuple(_checked(layer, payloads.get(layer.digest), subject, key, identity) for layer in layers)


def verify_signatures(
    manifest: Manifest,
    payloads: Mapping[Digest, bytes],
    subject: Digest,
    key: VerifyingKey,
    identity: str | None = None,
) -> tuple[SimpleSignature, ...]:
    """Return the valid signatures of a signature manifest, with `check_signatures`.

    If none is valid, raises VerificationError with all problems: `signature-missing` if there are no signatures, else
    the codes given there.
    """
    checked = check_signatures(manifest, payloads, subject, key, identity)
    good = tuple(signature for signature in checked if signature.problem is None)
    if good:
        return good
    problems = _nearest([signature.problem for signature in checked if signature.problem])
    if not problems:
        raise VerificationError(
            "signature-missing", "the signature manifest has no signature", place=signature_tag(subject)
        )
    raise VerificationError.of(problems)


def _nearest(problems: Sequence[Problem]) -> list[Problem]:
    """Sort problems with `signature-wrong-key` last: other signers' keys are expected."""
    return sorted(problems, key=lambda problem: problem.code == "signature-wrong-key")


def _checked(
    layer: Descriptor, payload: bytes | None, subject: Digest, key: VerifyingKey, identity: str | None
) -> SimpleSignature:
    place = f"{signature_tag(subject)}: layer {layer.digest.short}"

    def bad(code: str, message: str, hint: str | None = None) -> SimpleSignature:
        return SimpleSignature(layer, *said, Problem(code, message, place, hint))

    said: tuple[Digest | None, str | None] = (None, None)
    signature = _signature(layer)
    if layer.media_type != media_types.SIMPLE_SIGNING or signature is None or layer.size > PAYLOAD_LIMIT:
        return bad("signature-malformed", "the layer is not a signature in cosign's format")
    if payload is None:
        return bad(
            "signature-payload-missing",
            f"the signed payload {layer.digest} is listed but missing",
            "publish the image again with --read-back: the same key signs the same bytes",
        )
    if len(payload) != layer.size or Digest.of(payload) != layer.digest:
        return bad("signature-altered", "the signed payload does not match the digest in the signature manifest")
    try:
        said = _claims(payload, place)
    except VerificationError as error:
        return bad("signature-malformed", str(error.problems[0].message))
    if not key.verifies(signature, payload):
        return bad(
            "signature-wrong-key",
            f"the signature does not verify with the key {key.fingerprint.short}",
            WRONG_KEY_HINT,
        )
    digest, name = said
    if digest != subject:
        return bad(
            "signature-of-another",
            f"the signature is for {digest}, not for {subject}: it was copied from another image",
        )
    if identity is not None and name is not None and _without_tag(name) != _without_tag(identity):
        return bad(
            "signature-other-identity",
            f"the image was signed as {name}, not as {identity}",
            "a copy keeps its source's name; sign it under the new name, or expect the old one with --as",
        )
    return SimpleSignature(layer, digest, name, None)


def claimed_identity(payload: bytes) -> str:
    """Return the unverified name in a signature's payload, without tag and digest.

    Raises VerificationError.
    """
    return _without_tag(_claims(payload, "signature")[1])


def _claims(payload: bytes, place: str) -> tuple[Digest, str]:
    critical = JsonReader.parse(payload, place).get("critical")
    if critical.get("type").text() != SIGNATURE_TYPE:
        raise VerificationError("signature-malformed", f"the payload is not a {SIGNATURE_TYPE}", place=place)
    digest = Digest.parse(critical.get("image").get("docker-manifest-digest").text())
    return digest, critical.get("identity").get("docker-reference").text()


def _signature(layer: Descriptor) -> bytes | None:
    try:
        return base64.b64decode(dict(layer.annotations).get(SIGNATURE_ANNOTATION, ""), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _without_tag(name: str) -> str:
    """Strip tag and digest: `HOST:PORT/NAME:TAG@sha256:…` → `HOST:PORT/NAME`."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0] if slash else name


def _of_layers(layers: Sequence[Descriptor]) -> Artifact:
    """Make the signature manifest with these layers; its blob is the config."""
    config = _config(layers)
    descriptor = Descriptor(media_types.CONFIG, Digest.of(config), len(config))
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "config": descriptor_json(descriptor),
        "layers": [descriptor_json(layer) for layer in layers],
    }
    return Artifact(Manifest(media_types.MANIFEST, canonical_json(document)), ((descriptor, config),))


def _config(layers: Sequence[Descriptor]) -> bytes:
    """Return the config as cosign writes it.

    Payloads are not compressed: their digests are the diff_ids.
    """
    return canonical_json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
