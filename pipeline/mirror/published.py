"""Read the manifests and configs of a published image or index from a repository, verified."""

from __future__ import annotations

import contextlib

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.references import HEALED_BY_SCRUB
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.oci import end_of_life, media_types, parse_image, parse_index
from pipeline.oci.image_manifest import JsonReader

_SHOWN = 12
"""Tags that the hint of `reference-missing` names: the last ones."""


@dataclass(frozen=True, slots=True)
class MirroredImage:
    """A published image or index, with the exact bytes of its documents.

    `manifest` is that of the reference; `images` is the one image, or those that the index lists.
    """

    manifest: Manifest
    images: tuple[Image, ...]

    @property
    def digest(self) -> Digest:
        """The digest of the image or index."""
        return self.manifest.digest

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests of the images, and last that of the index, if it is one."""
        own = tuple(Manifest(image.manifest_descriptor.media_type, image.manifest_bytes) for image in self.images)
        return own if self.manifest.media_type == media_types.MANIFEST else (*own, self.manifest)

    @property
    def version(self) -> str:
        """The product's version, from its first image's labels ("": there is none)."""
        return dict(self.images[0].config.labels).get(media_types.VERSION, "") if self.images else ""

    @property
    def platforms(self) -> frozenset[str]:
        """The platforms for which it has an image, as `linux/arm/v7`."""
        return frozenset(image.config.platform for image in self.images)

    @property
    def end_of_life(self) -> str:
        """The day until which the product is maintained (`2027-04-30`), or ""."""
        return end_of_life(self.manifest.data)

    @property
    def created(self) -> int:
        """Creation time of the newest of its images, in seconds since the epoch."""
        return max((image.config.created for image in self.images), default=0)


def read_published(repository: Repository, reference: Digest | str) -> MirroredImage:
    """Read the image or index with a tag or digest: manifests and configs, no layers.

    Raises UsageError `reference-missing`, VerificationError if a document is missing (`manifest-missing` for a tag that
    leads nowhere, `tag-damaged` for what is in the place of one) or wrong.
    """
    manifest = repository.manifest(reference)
    if manifest is None:
        raise missing_reference(repository, reference)
    if manifest.media_type == media_types.MANIFEST:
        return MirroredImage(manifest, (_image(repository, manifest, str(reference)),))
    if manifest.media_type != media_types.INDEX:
        raise VerificationError(
            "media-type",
            f"'{reference}' is neither an image nor an index: {manifest.media_type[:80]}",
            place=repository.url,
        )
    images = []
    for descriptor in parse_index(manifest.data, f"index {reference}"):
        one = repository.manifest(descriptor.digest)
        if one is None:
            raise VerificationError(
                "manifest-missing",
                f"index '{reference}' lists {descriptor.digest}, which is missing",
                place=repository.url,
                hint=HEALED_BY_SCRUB,
            )
        if (one.media_type, len(one.data)) != (descriptor.media_type, descriptor.size):
            raise VerificationError(
                "index-mismatch",
                f"the index entry of {descriptor.digest} in '{reference}' does not match its manifest",
                place=repository.url,
            )
        images.append(_image(repository, one, str(reference)))
    return MirroredImage(manifest, tuple(images))


def missing_reference(repository: Repository, reference: Digest | str) -> UsageError | VerificationError:
    """Make the error of a reference that is missing, or of a tag whose manifest is."""
    restored = ""
    with contextlib.suppress(RelbuildError):  # only for the hint
        stamp = repository.pruned_by(reference)
        mirror = repository.url.removesuffix(f"/{repository.name}")
        restored = f"a pruning removed it: `relbuild prune {mirror} --undo {stamp}` restores it" if stamp else ""
    with contextlib.suppress(RelbuildError):
        if isinstance(reference, str) and (misplaced := repository.misplaced_tag(reference)) is not None:
            return misplaced
        if isinstance(reference, str) and reference in repository.tags() and not repository.manifest(reference):
            return VerificationError(
                "manifest-missing",
                f"tag '{reference}' is there, and the manifest that it points to is not",
                place=repository.url,
                hint=restored or HEALED_BY_SCRUB,
            )
    return UsageError(
        "reference-missing",
        f"no such tag or digest: '{reference}'",
        place=repository.url,
        hint=restored or _what_is_there(repository),
    )


def _what_is_there(repository: Repository) -> str:
    tags: list[str] = []
    with contextlib.suppress(RelbuildError):  # only for the hint
        tags = [tag for tag in repository.tags() if not is_auxiliary(tag)]
    if not tags:
        return "the repository has no tags; check the mirror's address and the image's name"
    return f"tags: {', '.join(tags[-_SHOWN:])}" + (" …" if len(tags) > _SHOWN else "")


def _image(repository: Repository, manifest: Manifest, reference: str) -> Image:
    document = JsonReader.parse(manifest.data, f"manifest {manifest.digest.short}")
    config: Descriptor = document.get("config").descriptor()
    if config.media_type != media_types.CONFIG:
        raise VerificationError(
            "media-type", f"'{reference}' is not an image: its config is {config.media_type[:80]}", place=repository.url
        )
    title = document.get("annotations").members().get(media_types.TITLE)
    return parse_image(title.text() if title else "", reference, manifest.data, repository.read_blob(config))
