"""Make the referrer artifact with an image's source RPMs, for licences that require it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.digest import Digest, canonical_json
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import media_types
from pipeline.oci.artifacts import EMPTY_DATA, EMPTY_DESCRIPTOR, ArtifactManifest
from pipeline.oci.image_manifest import descriptor_json, timestamp

SOURCES_TYPE = "application/vnd.relbuild.sources.v1"
"""The artifactType; the layers are source RPMs, with their file names as titles."""

SOURCE_RPM = "application/x-rpm"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One source RPM: file name, sha256, size in bytes, and path."""

    name: str
    digest: Digest
    size: int
    path: Path


def make_sources_artifact(files: Sequence[SourceFile], subject: Descriptor, created: int) -> Artifact:
    """Make a referrer of `subject` with source RPMs as layers.

    `created`: the image's creation time, in seconds since the epoch. The same files always give the same manifest.
    """
    ordered = sorted(files, key=lambda one: (one.name, one.digest))
    layers = [Descriptor(SOURCE_RPM, one.digest, one.size, ((media_types.TITLE, one.name),)) for one in ordered]
    data = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": SOURCES_TYPE,
            "config": descriptor_json(EMPTY_DESCRIPTOR),
            "layers": [descriptor_json(layer) for layer in layers],
            "subject": descriptor_json(Descriptor(subject.media_type, subject.digest, subject.size)),
            "annotations": {media_types.CREATED: timestamp(created)},
        }
    )
    blobs: list[tuple[Descriptor, bytes | Path]] = [(EMPTY_DESCRIPTOR, EMPTY_DATA)]
    blobs += [(Descriptor(SOURCE_RPM, one.digest, one.size), one.path) for one in ordered]
    return Artifact(Manifest(media_types.MANIFEST, data), tuple(blobs))


def is_sources_artifact(said: ArtifactManifest, subject: Digest) -> bool:
    """Return whether a manifest has the form of source packages of `subject`, and of no image."""
    return (
        said.artifact_type == SOURCES_TYPE
        and said.subject is not None
        and said.subject.digest == subject
        and said.config.media_type == media_types.EMPTY
        and all(layer.media_type == SOURCE_RPM for layer in said.layers)
    )
