"""Constants: predicate types of attestations, as in `cosign verify-attestation --type`."""

from __future__ import annotations

SIGN = "https://sigstore.dev/cosign/sign/v1"
"""A plain signature of an image as an attestation (cosign 3); its predicate is empty."""
PROVENANCE = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
SMOKE = "https://relbuild.org/smoke/v1"
"""The evidence of a smoke test: its checks and their recorded answers."""
MOVE = "https://relbuild.org/move/v1"
"""A statement of a tag's target, with its time and expiry."""
LOCK = "https://relbuild.org/lock/v1"
"""The image's lock, and the digests of all other inputs of its build and tests."""
