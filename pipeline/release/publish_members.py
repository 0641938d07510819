"""Publish an index whose images were built and tested on several machines.

Each machine pushes its image, signed and attested, to the mirror; no tag points to it. When all are there, one machine
has the gate judge what is attested of them, pushes the index, and sets the tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.gate import AttestedEvidence, Candidate, Cleared
from pipeline.mirror.image_tags import floating_tags, immutable_tag
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.push import PushedImage, Upload, push, push_image
from pipeline.mirror.signed_identity import require_identity
from pipeline.model.image import Image
from pipeline.model.provenance import Provenance
from pipeline.model.publication import Publication
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey, make_index
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import current_images, mirror_access, tag_signer
from pipeline.release.publish import (
    BuiltImage,
    KnownRepositories,
    built_candidate,
    image_attachments,
    index_attachments,
    open_built_image,
    refuse_doubles,
    single_manifest,
)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """The index to publish, and options.

    `name` is the product's, `members` are the digests of its images on the mirror `to`, `provenance` is that of one of
    their builds. `checks` is the digest of the recipe's checks, which all must have passed. `attested`: further
    attestations of each image, predicate type → JSON. `former`: keys of the publisher before `key`, whose signatures
    count as well.
    """

    name: str
    members: tuple[Digest, ...]
    to: Address
    key: SigningKey
    provenance: Provenance
    checks: Digest
    rules: MirrorRules = MirrorRules()
    known_as: str = ""
    attested: Mapping[str, bytes] = field(default_factory=dict)
    former: tuple[VerifyingKey, ...] = ()

    @property
    def trusted(self) -> VerifyingKey:
        """The keys whose signatures count."""
        return replace(self.key.public, former=self.former)


def push_member(
    layout: Path,
    to: Address,
    key: SigningKey,
    build_env: BuildEnvironment,
    *,
    rules: MirrorRules,
    known_as: str = "",
    read_back: bool = False,
) -> PushedImage:
    """Push an image that was built here, signed and attested; set no tag.

    `read_back`: see `PublishOptions`.

    The gate is asked before anything is signed or pushed, since `publish_index` believes what the key attests. Raises
    PublicationRefused, UsageError, VerificationError, EnvironmentLacking.
    """
    built = open_built_image(layout, build_env)
    _clear_member(built, rules, build_env)
    access = mirror_access(build_env, read_back=read_back)
    with access.mirror(to, create=True, name=known_as) as mirror, mirror.writing():
        repository = mirror.repository(built.image.name)
        known = KnownRepositories(build_env.store, mirror.url)
        pushed = push_image(
            built.image,
            image_attachments(built, key, {}),
            repository,
            source=build_env.store.blob,
            elsewhere=known.of((built.image,)),
            progress=build_env.progress,
            read_back=read_back,
        )
        known.remember((built.image,), built.image.name)
    return pushed


def _clear_member(built: BuiltImage, rules: MirrorRules, build_env: BuildEnvironment) -> None:
    """Have the gate judge an image by this store's seal and by the rules for its index's tags.

    Those are the version's, and one of the immutable form. Rules for other tags say nothing of it.
    """
    image, version = built.image, built.bill.version
    tags = (*floating_tags(version), immutable_tag(version, image.config.created, image.digest))
    Cleared(image.name, tags, single_manifest(image), (built_candidate(built, build_env.store),), rules)


def publish_index(options: IndexOptions, build_env: BuildEnvironment) -> Publication:
    """Publish the index of images that are on the mirror.

    Each must be signed by the key, and attested to have passed. Raises PublicationRefused, UsageError,
    VerificationError, EnvironmentLacking.
    """
    access = mirror_access(build_env, read_back=True)  # As nights do, which alone publish so.
    with access.mirror(options.to, name=options.known_as, signs=True) as mirror, mirror.writing():
        repository = mirror.repository(options.name)
        members = [_member(repository, digest, options.trusted) for digest in options.members]
        images = tuple(image for member in members for image in member.images)
        refuse_doubles(images)
        top = make_index(images)
        version, created = members[0].version, max(image.config.created for image in images)
        floating = floating_tags(version)
        candidates = tuple(_candidate(image, repository, options) for image in images)

        def clear() -> Cleared:
            tags = (*floating, immutable_tag(version, created, top.digest))
            current = current_images(repository, floating, top.digest)
            return Cleared(options.name, tags, top, candidates, options.rules, current)

        upload = Upload(
            cleared=clear(),
            images=(),
            attachments=_attachments(images, options, index_attachments(top, images, options.provenance, options.key)),
            version=version,
            created=created,
            floating=floating,
            source=build_env.store.blob,
            read_back=True,
            leave_moved_back=True,
        )
        return push(
            upload,
            repository,
            clear_again=clear,
            signer=tag_signer(options.key, options.rules, build_env, options.former),
            progress=build_env.progress,
        )


def _member(repository: Repository, digest: Digest, key: VerifyingKey) -> MirroredImage:
    """Read a member, which `key` must have signed for this repository."""
    held = read_published(repository, digest)
    if len(held.images) != 1 or held.images[0].digest != digest:
        raise VerificationError("image-missing", f"{digest} is an index, not a single image", place=repository.url)
    require_identity(repository, held.manifest, key)
    return held


def _candidate(image: Image, repository: Repository, options: IndexOptions) -> Candidate:
    warrant = AttestedEvidence(image.digest, repository, options.trusted, options.checks)
    return Candidate(image.manifest_bytes, image.config_bytes, warrant.evidence, warrant, options.checks)


def _attachments(
    images: Sequence[Image], options: IndexOptions, of_index: SignedAttachments
) -> tuple[SignedAttachments, ...]:
    """Return further attestations of each image, and what is attached to the index."""
    further = (
        SignedAttachments(image.manifest_descriptor, options.name, image.config.created, options.attested, options.key)
        for image in images
    )
    return (*further, of_index)
