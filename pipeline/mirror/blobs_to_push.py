"""Blobs and manifests to push: of images, and of the attachments that a repository lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci.artifacts import EMPTY_DESCRIPTOR


class Attachments(Protocol):
    """Interface to what is attached to one manifest or index: its signature and attestations."""

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index."""

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Return the manifest for the signature's tag, with the `present` signatures there kept.

        None: it is signed already.
        """

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Return the attestations that the repository does not list yet."""


@dataclass(frozen=True, slots=True)
class LackingAttachments:
    """Attachments that one subject lacks: signature and attestations.

    `signed`: the manifest under the signature's tag now.
    """

    attachments: Attachments
    signed: Manifest | None
    signature: Artifact | None
    attestations: tuple[Artifact, ...]


def artifact_manifests(artifacts: Sequence[Artifact]) -> tuple[Manifest, ...]:
    """Return the manifests of artifacts."""
    return tuple(artifact.manifest for artifact in artifacts)


def image_blobs(
    images: Sequence[Image], source: Callable[[Digest], Path]
) -> dict[Digest, tuple[Descriptor, bytes | Path]]:
    """Return the layers and configs of images, the largest first: none is left over at the end."""
    found: dict[Digest, tuple[Descriptor, bytes | Path]] = {}
    for image in images:
        for layer in image.layers:
            found[layer.blob.digest] = (layer.blob, source(layer.blob.digest))
        found[image.config_descriptor.digest] = (image.config_descriptor, image.config_bytes)
    return dict(sorted(found.items(), key=lambda one: -one[1][0].size))


def image_manifests(images: Sequence[Image], top: Manifest) -> tuple[Manifest, ...]:
    """Return the manifests of images, and an index `top` after those that it lists."""
    own = [Manifest(image.manifest_descriptor.media_type, image.manifest_bytes) for image in images]
    return (*own, *(() if any(one.digest == top.digest for one in own) else (top,)))


def attachment_blobs(plans: Sequence[LackingAttachments]) -> dict[Digest, tuple[Descriptor, bytes | Path, bool]]:
    """Return the blobs of attachments, and whether each is new to the repository.

    Attachments that it lacks have their own; the empty config is shared, and source packages may be.
    """
    found: dict[Digest, tuple[Descriptor, bytes | Path, bool]] = {}
    for plan in plans:
        for artifact in (*([plan.signature] if plan.signature else []), *plan.attestations):
            for descriptor, content in artifact.blobs:
                found[descriptor.digest] = (
                    descriptor, content, isinstance(content, bytes) and descriptor != EMPTY_DESCRIPTOR
                )  # fmt: skip
    return found
