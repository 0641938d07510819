"""Read one attested predicate of an image (SBOM, lock …), verified with a key or unverified."""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.attestations import find_attested, list_bundles
from pipeline.mirror.protocol import Repository
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    VerifyingKey,
    bundle_layer,
    unverified_statement,
)


def read_attested_predicate(
    repository: Repository, image: Digest, predicate_type: str, key: VerifyingKey | None
) -> bytes:
    """Return a predicate (JSON) of a type that `key` attests of `image`.

    Without a key nothing is verified.

    Raises VerificationError `attestation-missing`, or the error of one that does not verify.
    """
    if key is not None:
        good, bad = find_attested(repository, image, predicate_type, key)
        if good:
            return good[-1].statement.predicate
        raise bad[0] if bad else _missing(repository, image, predicate_type)
    for referrer in reversed(list_bundles(repository, image)):
        if referrer.annotation(PREDICATE_TYPE_ANNOTATION) not in (predicate_type, ""):
            continue
        manifest = repository.manifest(referrer.descriptor.digest)
        if manifest is None:
            continue
        said = unverified_statement(repository.read_blob(bundle_layer(manifest)))
        if said.predicate_type == predicate_type and image in {one.digest for one in said.subjects}:
            return said.predicate
    raise _missing(repository, image, predicate_type)


def _missing(repository: Repository, image: Digest, predicate_type: str) -> VerificationError:
    return VerificationError(
        "attestation-missing",
        f"{image} has no attestation of type {predicate_type}",
        place=repository.url,
        hint="publish it with relbuild, or copy it with `relbuild copy`, which also copies attestations",
    )
