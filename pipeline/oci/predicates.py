"""Predicate types of the attestations of images.

They are named as verifiers know them (`cosign verify-attestation --type`).
"""

from __future__ import annotations

SIGN = "https://sigstore.dev/cosign/sign/v1"
"""Says nothing but that the image is signed (cosign 3); its predicate is empty."""
PROVENANCE = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
SMOKE = "https://relbuild.org/smoke/v1"
"""The evidence of a smoke test: what was asked, what was answered."""
MOVE = "https://relbuild.org/move/v1"
"""The statement of where a tag points since when, and until when that may be believed."""
LOCK = "https://relbuild.org/lock/v1"
"""The lock that the image was built from, and the digests of all else that it was made from and tested with."""
