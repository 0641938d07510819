"""DSSE 1.0 envelopes (protocol.md, envelope.md): sign, encode, parse, and verify by key.

The payload's bytes are signed, after their type, so that no canonical form of JSON is needed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import field

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.oci.image_manifest import JsonReader
from pipeline.oci.signing_keys import SigningKey, VerifyingKey

ENVELOPE_SIGNATURES_LIMIT = 16
"""Signatures in one envelope, at most; a bundle has exactly one."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload, its type, and signatures over both. Unverified until `signed_by` returns True."""

    payload_type: str
    payload: bytes = field(repr=False)
    signatures: tuple[bytes, ...]

    def signed_by(self, key: VerifyingKey) -> bool:
        """Return True if one of the signatures is by `key`."""
        data = pre_authentication(self.payload_type, self.payload)
        return any(key.verifies(signature, data) for signature in self.signatures)


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (PAE, protocol.md)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, key: SigningKey) -> Envelope:
    """Sign a payload; return the envelope with one signature."""
    return Envelope(payload_type, payload, (key.sign(pre_authentication(payload_type, payload)),))


def envelope_json(envelope: Envelope) -> dict[str, object]:
    """Return the JSON of an envelope, without the optional, unauthenticated `keyid`."""
    return {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [{"sig": base64.b64encode(signature).decode()} for signature in envelope.signatures],
    }


def read_envelope(document: JsonReader) -> Envelope:
    """Parse an envelope from JSON, unverified. Raises VerificationError `document-malformed`."""
    signatures = document.get("signatures").items()
    if not 0 < len(signatures) <= ENVELOPE_SIGNATURES_LIMIT:
        raise VerificationError(
            "document-malformed",
            f"the envelope has {len(signatures)} signatures (1 to {ENVELOPE_SIGNATURES_LIMIT} allowed)",
        )
    return Envelope(
        document.get("payloadType").text(),
        _decoded(document.get("payload")),
        tuple(_decoded(signature.get("sig")) for signature in signatures),
    )


def _decoded(part: JsonReader) -> bytes:
    """Decode base64 with either alphabet (envelope.md)."""
    text = part.text()
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError("document-malformed", f"invalid base64 in the envelope: {error}") from error
