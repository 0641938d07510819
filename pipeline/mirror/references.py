"""Parse a manifest's references; make and parse referrers indexes; make lists of tags.

Pure functions without I/O. image-spec 1.1, manifest.md, image-index.md; distribution-spec 1.1, "Listing Referrers".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import MappingProxyType

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci import media_types
from pipeline.oci.image_manifest import JsonReader, descriptor_json

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFEST_KINDS = MappingProxyType(
    {
        media_types.MANIFEST: "oci-image",
        media_types.INDEX: "oci-index",
        DOCKER_MANIFEST: "docker-image",
        DOCKER_INDEX: "docker-index",
    }
)
"""Media types of manifests that a mirror of files can have → a short name of each, for file names."""

_INDEXES = frozenset({media_types.INDEX, DOCKER_INDEX})

_ELSEWHERE = ("nondistributable", "foreign")
"""Words in the media types of layers that must not be redistributed: no mirror has them (image-spec, layer.md)."""


HEALED_BY_SCRUB = (
    "`relbuild scrub MIRROR` finds what is damaged or missing, and heals it from the store or, with --from, a mirror"
)
"""The hint of errors of damage on a mirror."""


@dataclass(frozen=True, slots=True)
class References:
    """References of a manifest or index.

    `manifests`: an index's entries; `blobs`: config and layers that must be on the same mirror; `subject`: of a
    referrer; `artifact_type` and `annotations`: as in the list of referrers.
    """

    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    subject: Digest | None
    artifact_type: str
    annotations: tuple[tuple[str, str], ...]

    def joined(self, other: References) -> References:
        """Return these references, and all that only `other` has: of a manifest under a second name."""
        return replace(
            self,
            manifests=tuple(dict.fromkeys((*self.manifests, *other.manifests))),
            blobs=tuple(dict.fromkeys((*self.blobs, *other.blobs))),
        )


def references(manifest: Manifest) -> References:
    """Parse a manifest or index and return its references.

    Raises VerificationError `document-malformed`, `digest-malformed`.
    """
    document = JsonReader.parse(manifest.data, f"manifest {manifest.digest}")
    entries: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    artifact_type = document.get("artifactType").text("")
    if manifest.media_type in _INDEXES:
        entries = tuple(item.descriptor() for item in document.get("manifests").items())
    else:
        config = document.get("config").descriptor()
        layers = tuple(item.descriptor() for item in document.get("layers").items())
        blobs = (config, *(one for one in layers if not any(word in one.media_type for word in _ELSEWHERE)))
        artifact_type = artifact_type or config.media_type
    subject = document.get("subject")
    notes = {key: value.text() for key, value in document.get("annotations").members().items()}
    return References(
        tuple(one for one in entries if one.media_type in MANIFEST_KINDS),
        blobs + tuple(one for one in entries if one.media_type not in MANIFEST_KINDS),
        None if subject.missing else subject.descriptor().digest,
        artifact_type,
        tuple(sorted(notes.items())),
    )


def readable_references(manifest: Manifest) -> References | None:
    """Return the references of a manifest; None for a malformed one, which no mirror takes."""
    try:
        return references(manifest)
    except VerificationError:
        return None


def require_complete(
    manifest: Manifest, place: str, has_blob: Callable[[Digest], bool], read: Callable[[Digest], Manifest | None]
) -> None:
    """Check that a mirror has all blobs and manifests that a client would pull with a manifest.

    `has_blob` and `read` ask the mirror. Raises VerificationError `blob-missing` or `manifest-missing` with `place`.
    """
    referred = references(manifest)
    for blob in referred.blobs:
        if not has_blob(blob.digest):
            raise VerificationError(
                "blob-missing",
                f"manifest {manifest.digest} lacks its blob {blob.digest}",
                place=place,
                hint=HEALED_BY_SCRUB,
            )
    for entry in referred.manifests:
        inner = read(entry.digest)
        if inner is None:
            raise VerificationError(
                "manifest-missing",
                f"index {manifest.digest} lacks its manifest {entry.digest}",
                place=place,
                hint=HEALED_BY_SCRUB,
            )
        require_complete(inner, place, has_blob, read)


def manifest_subject(manifest: Manifest) -> Digest | None:
    """Return the digest of a manifest's subject; None if it has none."""
    subject = JsonReader.parse(manifest.data, "manifest").get("subject")
    return None if subject.missing else subject.descriptor().digest


def media_type_of(data: bytes) -> str | None:
    """Return the media type of a manifest or index, from its JSON; None if `data` is neither.

    OCI documents without `mediaType` are recognised by their members.
    """
    try:
        document = JsonReader.parse(data, "manifest")
        if document.get("schemaVersion").missing:
            return None
        said = document.get("mediaType").text("")
        if said:
            return said if said in MANIFEST_KINDS else None
        if not document.get("manifests").missing:
            return media_types.INDEX
        return None if document.get("layers").missing else media_types.MANIFEST
    except VerificationError:
        return None


def referrer_of(manifest: Manifest) -> Referrer:
    """Return the entry of a manifest in the list of its subject's referrers."""
    said = references(manifest)
    plain = manifest.descriptor
    return Referrer(Descriptor(plain.media_type, plain.digest, plain.size, said.annotations), said.artifact_type)


def referrers_index(referrers: Iterable[Referrer]) -> Manifest:
    """Make a referrers index, sorted by digest.

    It is the response of the referrers API and the target of the fallback tag.
    """
    entries = [
        {**descriptor_json(one.descriptor), **({"artifactType": one.artifact_type} if one.artifact_type else {})}
        for one in sorted(referrers, key=lambda one: one.descriptor.digest)
    ]
    return Manifest(
        media_types.INDEX,
        canonical_json({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": entries}),
    )


def listed_referrers(index: Manifest) -> tuple[Referrer, ...]:
    """Return the referrers that a referrers index lists, each once, sorted by digest.

    Raises VerificationError.
    """
    document = JsonReader.parse(index.data, "list of referrers")
    found: dict[Digest, Referrer] = {}
    for item in document.get("manifests").items():
        descriptor = item.descriptor()
        found[descriptor.digest] = Referrer(descriptor, item.get("artifactType").text(""))
    return tuple(found[digest] for digest in sorted(found))


def fallback_tag(subject: Digest) -> str:
    """Return the tag of a subject's referrers index.

    distribution-spec 1.1, "Referrers Tag Schema".
    """
    return f"sha256-{subject.hex}"


def listed_tags(name: str, tags: Iterable[str]) -> bytes:
    """Return the response to `/v2/NAME/tags/list`."""
    return canonical_json({"name": name, "tags": sorted(tags)})


def listed_repositories(names: Iterable[str]) -> bytes:
    """Return the response to `/v2/_catalog`."""
    return canonical_json({"repositories": sorted(names)})
