"""Publish images that were built and tested here to a mirror, signed and attested.

With SBOMs, provenance, evidence and, on request, source packages. Start reading at `publish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pipeline.beneath import NotRegular, open_unlogged
from pipeline.digest import Digest, identity
from pipeline.errors import PublicationRefused, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.gate import Candidate, Cleared, SealedEvidence
from pipeline.mirror.image_tags import floating_tags, immutable_tag
from pipeline.mirror.policy import CurrentImage
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import Upload, push
from pipeline.mirror.tag_moves import refuse_immutable
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_LIMIT, EVIDENCE_SEAL
from pipeline.model.image import Image
from pipeline.model.manifests import Manifest
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.publication import Publication
from pipeline.model.rules import MirrorRules
from pipeline.oci import (
    SigningKey,
    VerifyingKey,
    damaged_layers,
    load_layout_image,
    make_index,
    provenance_predicate,
    read_layout,
    read_layout_index,
)
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SMOKE, SPDX
from pipeline.oci.sbom import SbomForm
from pipeline.oci.sources_artifact import SourceFile, make_sources_artifact
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import (
    current_images,
    mirror_access,
    refuse_reserved_tag,
    tag_signer,
    tag_targets,
)
from pipeline.reports import (
    member_layout,
    read_bill,
    read_build_record,
    read_sbom,
    read_source_files,
    refuse_edited_report,
    report_folder,
)
from pipeline.store import Store
from pipeline.transfer import QuestionLog

_SEAL_LIMIT = 1000
"""Bytes of a seal in a report: 65."""

REPOSITORIES_REMEMBERED = 3
"""Repositories that are recorded for a layer: each that has lost it costs a request."""


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Images to publish, and options.

    `layouts`: as builds left them, with their reports beside them; images of one name become one index, and the layout
    of an index stands for its images. `to`: a mirror;
    `known_as`: the `HOST/NAMESPACE` by which clients pull from a directory. `tags` replace the version's floating tags.
    `sources`: also publish the source packages, which the builds have fetched. `attested`: further attestations of each
    image, predicate type → JSON. `read_back`: read what was put on the mirror, and what a registry says that it has,
    before a tag points to it. `leave_moved_back`: as nights do, leave tags that a person moved back from this image.
    `former`: keys of the publisher before `key`, whose signed moves of tags count as well.
    """

    layouts: tuple[Path, ...]
    to: Address
    key: SigningKey
    rules: MirrorRules = MirrorRules()
    tags: tuple[str, ...] | None = None
    sources: bool = False
    known_as: str = ""
    attested: Mapping[str, bytes] = field(default_factory=dict)
    read_back: bool = False
    leave_moved_back: bool = False
    former: tuple[VerifyingKey, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image and its build's report: evidence and its seal, bill, inputs, SBOMs, sources."""

    image: Image
    evidence: bytes
    seal: str
    bill: Bill
    record: BuildRecord
    sboms: tuple[tuple[str, bytes], ...]
    sources: tuple[SourceFile, ...] = ()


def publish(
    options: PublishOptions, build_env: BuildEnvironment, log: QuestionLog | None = None
) -> tuple[Publication, ...]:
    """Publish images that were built and tested here.

    Each product is a publication of its own; when one is refused, those before it are published. `log` notes what a
    registry is asked.

    Raises PublicationRefused, UsageError, VerificationError, EnvironmentLacking.
    """
    for tag in options.tags or ():
        refuse_reserved_tag(tag)
    layouts = [member for layout in options.layouts for member in member_layouts(layout)]
    built_images = [open_built_image(layout, build_env, sources=options.sources) for layout in layouts]
    products: dict[str, list[BuiltImage]] = {}
    for built in built_images:
        products.setdefault(built.image.name, []).append(built)
    publications = []
    access = mirror_access(build_env, read_back=options.read_back, log=log)
    with access.mirror(options.to, create=True, name=options.known_as) as mirror, mirror.writing():
        known = KnownRepositories(build_env.store, mirror.url)
        for name, members in products.items():
            before, repository = mirror.traffic, mirror.repository(name)
            upload, clear_again = prepare_upload(members, repository, options, build_env)
            upload = replace(
                upload,
                elsewhere=known.of(upload.images),
                read_back=options.read_back,
                leave_moved_back=options.leave_moved_back,
            )
            done = push(
                upload,
                repository,
                clear_again=clear_again,
                signer=tag_signer(options.key, options.rules, build_env, options.former),
                progress=build_env.progress,
            )
            publications.append(replace(done, requests=(mirror.traffic - before).kinds))
            known.remember(upload.images, name)
    return tuple(publications)


@dataclass(frozen=True, slots=True)
class KnownRepositories:
    """Record in the store of the repositories of a mirror to which layers were pushed.

    So a layer that products share is mounted and not sent again. An outdated entry only costs a request.
    """

    store: Store
    mirror: str

    def of(self, images: Sequence[Image]) -> dict[Digest, tuple[str, ...]]:
        """Return digest of a layer → names of repositories that have it."""
        digests = {layer.blob.digest for image in images for layer in image.layers}
        return {digest: self._names(digest) for digest in digests}

    def remember(self, images: Sequence[Image], name: str) -> None:
        """Record that the images' layers are in the repository `name`."""
        for digest in {layer.blob.digest for image in images for layer in image.layers}:
            names = self._names(digest)
            if name not in names:
                self.store.remember(self._key(digest), [name, *names][:REPOSITORIES_REMEMBERED])

    def _names(self, digest: Digest) -> tuple[str, ...]:
        known = self.store.recall(self._key(digest))
        return tuple(str(name) for name in known) if isinstance(known, list) else ()

    def _key(self, digest: Digest) -> Digest:
        return identity("blob-at", 1, mirror=self.mirror, digest=digest)


def member_layouts(layout: Path) -> tuple[Path, ...]:
    """Return the layouts of an index's images, which are beside its own.

    They are `layout` itself if it has one image. Raises UsageError `not-a-layout`, `index-outdated` if one of them has
    another image by now, VerificationError.
    """
    listed = read_layout_index(layout)
    if not listed:
        return (layout,)
    members = []
    for descriptor, arch in listed:
        member = member_layout(layout, arch)
        if not (member / "oci-layout").is_file() or read_layout(member).digest != descriptor.digest:
            raise UsageError(
                "index-outdated",
                f"the image for {arch} in the index of '{layout}' is not the one in '{member}'",
                place=str(layout),
                hint="build all architectures again in one command; unchanged layers are reused",
            )
        members.append(member)
    return tuple(members)


def open_built_image(layout: Path, build_env: BuildEnvironment, *, sources: bool = False) -> BuiltImage:
    """Read an image from its layout, and its report; copy its layers into the store.

    What is published is read from the store; layers that are damaged in the layout alone are warned of.
    Raises UsageError `report-missing`, PublicationRefused `gate-report-missing`, `gate-report-edited`,
    VerificationError.
    """
    image = load_layout_image(layout, store=build_env.store)
    for digest in damaged_layers(layout, image, store=build_env.store):
        build_env.progress.warn(
            f"{layout}: the layer {digest} is missing or damaged there; the store's, which is whole, is published. "
            "Build the image again to make the layout anew"
        )
    folder = report_folder(layout)
    evidence, seal = _evidence(folder, image)
    refuse_edited_report(folder, image.digest, build_env.store)
    forms = {SPDX: SbomForm.SPDX, CYCLONEDX: SbomForm.CYCLONEDX}
    return BuiltImage(
        image=image,
        evidence=evidence,
        seal=seal,
        bill=read_bill(folder),
        record=read_build_record(folder),
        sboms=tuple((kind, read_sbom(folder, form, image.digest)) for kind, form in forms.items()),
        sources=read_source_files(folder, build_env.store) if sources else (),
    )


def _evidence(folder: Path, image: Image) -> tuple[bytes, str]:
    try:
        with open_unlogged(folder / EVIDENCE_FILE) as file, open_unlogged(folder / EVIDENCE_SEAL) as sealed:
            return file.read(EVIDENCE_LIMIT + 1), sealed.read(_SEAL_LIMIT).decode(errors="replace")
    except NotRegular as error:
        raise PublicationRefused(
            "gate-report-missing",
            f"'{error.filename}' is no part of a smoke report: {error.strerror}",
            place=str(folder),
            hint="remove it, and test the image with `relbuild build`, or `relbuild smoke RECIPE`",
        ) from None
    except FileNotFoundError:
        raise PublicationRefused(
            "gate-report-missing",
            f"{image.name} {image.digest} has no passing smoke report in {folder}",
            place=str(folder),
            hint="test it with `relbuild build`, or `relbuild smoke RECIPE` for an image that is already built",
        ) from None


def prepare_upload(
    members: Sequence[BuiltImage], repository: Repository, options: PublishOptions, build_env: BuildEnvironment
) -> tuple[Upload, Callable[[], Cleared]]:
    """Return the cleared upload of one product, and a function that asks the gate again."""
    images = tuple(member.image for member in members)
    refuse_other_platforms(members)
    refuse_doubles(images)
    top = single_manifest(images[0]) if len(images) == 1 else make_index(images)
    for tag in options.tags or ():
        refuse_immutable(repository, tag, top.digest)
    version = members[0].bill.version
    created = max(image.config.created for image in images)
    floating = options.tags if options.tags is not None else floating_tags(version)
    candidates = tuple(built_candidate(member, build_env.store) for member in members)
    immutable = immutable_tag(version, created, top.digest)
    targets = tag_targets(repository, floating, top.digest, immutable=(immutable,))

    def cleared(current: tuple[CurrentImage, ...]) -> Cleared:
        return Cleared(images[0].name, (*floating, immutable), top, candidates, options.rules, current)

    def clear_again() -> Cleared:
        return cleared(current_images(repository, floating, top.digest))

    attachments = [one for member in members for one in image_attachments(member, options.key, options.attested)]
    if len(images) > 1:
        attachments.append(index_attachments(top, images, members[0].record.provenance, options.key))
    upload = Upload(
        cleared=cleared(targets.current),
        images=images,
        attachments=tuple(attachments),
        version=version,
        created=created,
        floating=floating,
        source=build_env.store.blob,
        standing=targets.standing,
    )
    return upload, clear_again


def built_candidate(member: BuiltImage, store: Store) -> Candidate:
    """Return the candidate of an image that was built here.

    `store` must have sealed its evidence.
    """
    return Candidate(
        member.image.manifest_bytes,
        member.image.config_bytes,
        member.evidence,
        SealedEvidence(member.seal, store),
        member.record.checks,
    )


def refuse_other_platforms(members: Sequence[BuiltImage]) -> None:
    """Refuse images of one index that were built for different platforms.

    Raises UsageError `platform-differs`.
    """
    built = {member.record.provenance.platform: member.image.config.architecture for member in members}
    if len(built) > 1:
        raise UsageError(
            "platform-differs",
            f"the images of '{members[0].image.name}' were built for different platforms: "
            + ", ".join(f"{platform} ({arch})" for platform, arch in built.items()),
            hint="build all architectures for one platform, or publish each platform's to a mirror of its own",
        )


def refuse_doubles(images: Sequence[Image]) -> None:
    """Refuse two images for one platform in an index. Raises UsageError `platform-twice`."""
    platforms = [(image.config.architecture, image.config.variant) for image in images]
    for platform in platforms:
        if platforms.count(platform) > 1:
            raise UsageError(
                "platform-twice",
                f"image '{images[0].name}' was given twice for {'/'.join(filter(None, platform))}",
                hint="give one layout per architecture",
            )


def single_manifest(image: Image) -> Manifest:
    """Return an image's own manifest, which tags point to where there is no index."""
    return Manifest(image.manifest_descriptor.media_type, image.manifest_bytes)


def image_attachments(
    member: BuiltImage, key: SigningKey, further: Mapping[str, bytes]
) -> tuple[SignedAttachments, ...]:
    """Return the attachments of an image, and of its source packages, which are signed too."""
    image = member.image
    created = image.config.created
    sources = (make_sources_artifact(member.sources, image.manifest_descriptor, created),) if member.sources else ()
    own = SignedAttachments(
        about=image.manifest_descriptor,
        name=image.name,
        created=created,
        predicates={
            PROVENANCE: provenance_predicate(member.record.provenance),
            **dict(member.sboms),
            SMOKE: member.evidence,
            **further,
        },
        key=key,
        attached=sources,
    )
    of_sources = (
        SignedAttachments(one.manifest.descriptor, f"sources of {image.name}", created, {}, key) for one in sources
    )
    return (own, *of_sources)


def index_attachments(
    top: Manifest, images: Sequence[Image], provenance: Provenance, key: SigningKey
) -> SignedAttachments:
    """Return the attachments of an index: signature, and provenance with images as materials.

    `provenance` is that of one of the images' builds.
    """
    from pipeline.model.configuration import rpm_arch  # only here: it brings the models of recipes with it

    materials = tuple(
        Material(f"{image.name} for {image.config.architecture}", "", image.digest, MaterialKind.IMAGE)
        for image in images
    )
    architectures = ", ".join(sorted(rpm_arch(image.config.architecture) for image in images))
    said = replace(provenance, materials=materials, architecture=architectures, invocation="")
    return SignedAttachments(
        about=top.descriptor,
        name=images[0].name,
        created=max(image.config.created for image in images),
        predicates={PROVENANCE: provenance_predicate(said)},
        key=key,
    )
