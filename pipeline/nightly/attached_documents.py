"""Find what a mirror has of a published image: attested documents, former packages."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.digest import Digest
from pipeline.mirror.attestations import list_bundles
from pipeline.mirror.protocol import Repository
from pipeline.model.published_image import AttachedDocument, package_versions
from pipeline.nightly.inputs_record import PublishedProduct
from pipeline.oci import PREDICATE_TYPE_ANNOTATION, bundle_layer
from pipeline.oci.predicates import CYCLONEDX, LOCK, PROVENANCE, SIGN, SMOKE, SPDX
from pipeline.resolve import parse_lock

DOCUMENT_NAMES = {
    SPDX: "SBOM (SPDX)",
    CYCLONEDX: "SBOM (CycloneDX)",
    PROVENANCE: "Provenance (SLSA)",
    SMOKE: "Smoke test",
    LOCK: "Lock",
    SIGN: "Signature",
}
"""Names of predicate types, for people."""


def published_packages(on_mirror: PublishedProduct) -> Mapping[str, str] | None:
    """Return the packages of an image on a mirror, name → version.

    Returns None if nobody knows.
    """
    if on_mirror.product is not None and on_mirror.product.published.packages:
        return package_versions([(one.name, one.evr) for one in on_mirror.product.published.packages])
    if not on_mirror.record.lock:
        return None
    sections = parse_lock(on_mirror.record.lock, "the lock").sections
    nevras = [one.package.nevra for section in sections for one in section.resolution.chosen]
    return package_versions([(nevra.name, nevra.evr) for nevra in nevras])


def list_attached(repository: Repository, image: Digest) -> tuple[AttachedDocument, ...]:
    """Return the signature and the attestations of an image: of each kind the newest.

    Where the mirror serves files, each has also its path below the mirror's address.
    """
    found: dict[str, AttachedDocument] = {}
    for referrer in list_bundles(repository, image):
        kind = referrer.annotation(PREDICATE_TYPE_ANNOTATION)
        if kind not in DOCUMENT_NAMES:
            continue
        manifest = repository.manifest(referrer.descriptor.digest)
        if manifest is None:
            continue
        blob = bundle_layer(manifest)
        path = repository.file_path(blob.digest)
        found[kind] = AttachedDocument(DOCUMENT_NAMES[kind], blob.digest, blob.media_type, blob.size, path)
    return tuple(found[kind] for kind in DOCUMENT_NAMES if kind in found)
