"""Make and parse manifests of artifacts, which have other content than an image's layers.

image-spec 1.1, manifest.md, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import (
    DOCUMENT_LIMIT,
    IMAGE_LAYERS_MOST,
    JsonReader,
    descriptor_json,
)

EMPTY_DATA = b"{}"
"""The blob that an artifact without config has as config (manifest.md)."""

EMPTY_DESCRIPTOR = Descriptor(media_types.EMPTY, Digest.of(EMPTY_DATA), len(EMPTY_DATA))


@dataclass(frozen=True, slots=True)
class ArtifactManifest:
    """The parsed manifest of an artifact.

    `artifact_type` is the config's media type where the manifest has none (distribution-spec 1.1, "Listing Referrers");
    `annotations` are sorted.
    """

    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: tuple[tuple[str, str], ...]

    def annotation(self, name: str) -> str:
        """Return an annotation's value; "" if it is missing."""
        return dict(self.annotations).get(name, "")


def make_referrer(
    artifact_type: str,
    layers: Sequence[tuple[str, bytes]],
    subject: Descriptor,
    annotations: Mapping[str, str] | None = None,
) -> Artifact:
    """Make an artifact that refers to `subject`, with the empty config.

    `layers`: media type and content of each. The same values always give the same manifest.
    """
    blobs = [(Descriptor(media_type, Digest.of(data), len(data)), data) for media_type, data in layers]
    manifest = referrer_manifest(artifact_type, [descriptor for descriptor, _ in blobs], subject, annotations)
    return Artifact(manifest, ((EMPTY_DESCRIPTOR, EMPTY_DATA), *blobs))


def referrer_manifest(
    artifact_type: str,
    layers: Sequence[Descriptor],
    subject: Descriptor,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Make the manifest of an artifact that refers to `subject`, with the empty config."""
    plain = Descriptor(subject.media_type, subject.digest, subject.size)
    data = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor_json(EMPTY_DESCRIPTOR),
            "layers": [descriptor_json(descriptor) for descriptor in layers],
            "subject": descriptor_json(plain),
            **({"annotations": dict(annotations)} if annotations else {}),
        }
    )
    return Manifest(media_types.MANIFEST, data)


def read_artifact(manifest: Manifest) -> ArtifactManifest:
    """Parse a manifest as an artifact's.

    Raises VerificationError `document-malformed`, `digest-malformed`.
    """
    if len(manifest.data) > DOCUMENT_LIMIT:
        raise VerificationError("document-malformed", f"the manifest exceeds {DOCUMENT_LIMIT >> 20} MiB")
    document = JsonReader.parse(manifest.data, "manifest")
    layers = tuple(layer.descriptor() for layer in document.get("layers").items())
    if len(layers) > IMAGE_LAYERS_MOST:
        raise VerificationError(
            "document-malformed", f"the manifest has {len(layers)} layers (at most {IMAGE_LAYERS_MOST})"
        )
    config = document.get("config").descriptor()
    subject = document.get("subject")
    notes = {key: value.text() for key, value in document.get("annotations").members().items()}
    return ArtifactManifest(
        document.get("artifactType").text("") or config.media_type,
        config,
        layers,
        None if subject.missing else subject.descriptor(),
        tuple(sorted(notes.items())),
    )
