"""Publishing: an upload in an order in which pulls find all of it or what was before.

Blobs, config, manifests; then signatures and attestations; then the tag that never moves; then the floating tags, each
move signed before it is made. All of it can be done again: what is there already is found and not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, assert_never

from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused, VerificationError
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Arrival, Repository, TagConflict
from pipeline.mirror.tag_moves import (
    MOVE_ATTEMPTS,
    MOVES_PARALLEL,
    TagMover,
    set_immutable_tag,
)
from pipeline.mirror.tag_statements import TagSigner
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Artifact, Manifest
from pipeline.model.publication import MoveCause, Publication
from pipeline.oci import signature_tag
from pipeline.progress import Progress, task


class Attachments(Protocol):
    """Signature and attestations that accompany one manifest or index."""

    @property
    def subject(self) -> Digest:
        """The digest of the manifest or index that it accompanies."""

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """Return the signature's manifest for its tag, with what is `present` there kept.

        None: it is signed already.
        """

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Those that the repository does not list yet."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image or index that was cleared, with all that is pushed with it.

    `images` have their exact documents, and their layers are found by `source`; `attachments` are those of each image
    and, if there is one, of the index. `floating`: tags that shall follow, the most particular first. `version` and
    `created` make the immutable tag.
    """

    cleared: Cleared
    images: tuple[Image, ...]
    attachments: tuple[Attachments, ...]
    version: str
    created: int
    floating: tuple[str, ...]
    source: Callable[[Digest], Path]
    elsewhere: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The image's digest, or the index's."""
        return self.cleared.manifest.digest


def push(
    upload: Upload,
    repository: Repository,
    *,
    clear_again: Callable[[], Cleared],
    signer: TagSigner,
    progress: Progress,
) -> Publication:
    """Push an upload to a repository.

    `clear_again` asks the gate anew when somebody else has moved a tag meanwhile; `signer` signs where tags point.

    Raises PublicationRefused `tag-immutable`, `tag-overtaken` (all else is done then), VerificationError if what is
    read back is not what was sent, and whatever the repository raises.
    """
    pushing = _Push(repository)
    with task(progress, "publish", repository.url, total=_size(upload), unit="bytes") as running:
        pushing.blobs(upload, running.advance)
        pushing.manifests(upload)
        pushing.attachments(upload.attachments)
    with task(progress, "check", repository.url):
        pushing.read_back(upload.attachments)
    immutable = immutable_tag(upload.version, upload.created, upload.digest)
    set_immutable_tag(repository, immutable, upload.cleared)
    mover = TagMover(repository, upload.version, MoveCause.PUBLISH, clear_again, signer.clock, signer)
    moved, unmoved = mover.move(upload.floating, upload.cleared)
    return Publication(
        repository=repository.url,
        digest=upload.digest,
        immutable=immutable,
        moved=moved,
        unmoved=unmoved,
        uploaded=tuple(pushing.uploaded),
        mounted=tuple(pushing.mounted),
        present=tuple(pushing.present),
        attached=tuple(digest for _, digest in pushing.attached),
        limits=upload.cleared.limits,
    )


def push_attachments(
    attachments: Sequence[Attachments], repository: Repository, *, progress: Progress
) -> tuple[tuple[tuple[Digest, int], ...], tuple[Digest, ...]]:
    """Push the attachments of images that are there already; no tag moves.

    Returns the (digest, bytes) that were sent, and the new referrers. Raises VerificationError if what is read back is
    not what was sent.
    """
    pushing = _Push(repository)
    with task(progress, "publish", repository.url):
        pushing.attachments(attachments)
    with task(progress, "check", repository.url):
        pushing.read_back(attachments)
    return tuple(pushing.uploaded), tuple(digest for _, digest in pushing.attached)


def _size(upload: Upload) -> int:
    return sum(layer.blob.size for image in upload.images for layer in image.layers)


@dataclass(slots=True)
class _Push:
    """A push that is under way: what has arrived so far, and how."""

    repository: Repository
    uploaded: list[tuple[Digest, int]] = field(default_factory=list)
    mounted: list[Digest] = field(default_factory=list)
    present: list[Digest] = field(default_factory=list)
    attached: list[tuple[Digest, Digest]] = field(default_factory=list)
    """(subject, referrer)"""
    _to_check: list[Descriptor] = field(default_factory=list)
    _documents: list[Manifest] = field(default_factory=list)

    def blobs(self, upload: Upload, advance: Callable[[int], None]) -> None:
        """Layers and configs, several at a time, each once."""
        wanted: dict[Digest, tuple[Descriptor, bytes | Path]] = {}
        for image in upload.images:
            for layer in image.layers:
                wanted[layer.blob.digest] = (layer.blob, upload.source(layer.blob.digest))
            wanted[image.config_descriptor.digest] = (image.config_descriptor, image.config_bytes)

        def send(one: tuple[Descriptor, bytes | Path]) -> tuple[Descriptor, Arrival]:
            descriptor, content = one
            elsewhere = upload.elsewhere.get(descriptor.digest, ())
            arrival = self.repository.put_blob(descriptor, content, elsewhere=elsewhere)
            advance(descriptor.size)
            return descriptor, arrival

        with ThreadPoolExecutor(MOVES_PARALLEL, "publish") as pool:
            for descriptor, arrival in pool.map(send, wanted.values()):
                self._arrived(descriptor, arrival)

    def manifests(self, upload: Upload) -> None:
        """Manifests by digest; an index after what it lists."""
        own = [Manifest(image.manifest_descriptor.media_type, image.manifest_bytes) for image in upload.images]
        top = upload.cleared.manifest
        for manifest in [*own, *([] if any(one.digest == top.digest for one in own) else [top])]:
            self._manifest(manifest)

    def attachments(self, attachments: Sequence[Attachments]) -> None:
        """Signature and attestations of each."""
        for one in attachments:
            self._sign(one)
            for artifact in one.attestations(self.repository):
                self._blobs_of(artifact)
                if self.repository.attach(artifact.manifest):
                    self.attached.append((one.subject, artifact.manifest.digest))
                    self.uploaded.append((artifact.manifest.digest, len(artifact.manifest.data)))
                self._documents.append(artifact.manifest)

    def read_back(self, attachments: Sequence[Attachments]) -> None:
        """Read what was sent from the mirror and compare its digests, before any tag points to it.

        What had been there was checked when it came, and is only asked for. Raises VerificationError, of all at once.
        """
        problems: list[Problem] = []

        def check(descriptor: Descriptor) -> tuple[Problem, ...]:
            try:
                self.repository.check_blob(descriptor)
            except VerificationError as error:
                return error.problems
            return ()

        with ThreadPoolExecutor(MOVES_PARALLEL, "check") as pool:
            for found in pool.map(check, self._to_check):
                problems += found
        for manifest in self._documents:
            if self.repository.manifest(manifest.digest) != manifest:
                problems.append(
                    Problem(
                        "manifest-not-kept",
                        f"manifest {manifest.digest} is missing after its upload",
                        self.repository.url,
                    )
                )
        for one in attachments:
            problems += [
                Problem("referrer-not-listed", f"referrer {digest} is not listed after its upload", self.repository.url)
                for digest in self._unlisted(one.subject)
            ]
        if problems:
            raise VerificationError.of(problems)

    def _unlisted(self, subject: Digest) -> set[Digest]:
        """Attach again what was attached to `subject` and is not listed; return what stays so.

        Where lists of referrers are kept by those who write them, a slow one may have undone it.
        """
        ours = {digest for about, digest in self.attached if about == subject}
        missing = ours
        for _ in range(MOVE_ATTEMPTS):
            listed = {referrer.descriptor.digest for referrer in self.repository.referrers(subject)}
            missing = ours - listed
            if not missing:
                break
            for manifest in self._documents:
                if manifest.digest in missing:
                    self.repository.attach(manifest)
        return missing

    def _sign(self, one: Attachments) -> None:
        tag = signature_tag(one.subject)
        for _ in range(MOVE_ATTEMPTS):
            present = self.repository.manifest(tag)
            artifact = one.signature(self.repository, present)
            if artifact is None:
                return
            self._blobs_of(artifact)
            self._manifest(artifact.manifest)
            try:
                self.repository.put_auxiliary(tag, artifact.manifest, present.digest if present else None)
            except TagConflict:  # another publisher signs the same: its signature is kept beside ours
                continue
            if not self.repository.overtaken({tag: artifact.manifest.digest}):
                return
        raise PublicationRefused(
            "tag-overtaken",
            f"other publishers keep signing {one.subject} at the same time",
            place=self.repository.url,
            hint="publish again when they have finished",
        )

    def _manifest(self, manifest: Manifest) -> None:
        if self.repository.put_manifest(manifest):
            self.uploaded.append((manifest.digest, len(manifest.data)))
            self._documents.append(manifest)
        else:
            self.present.append(manifest.digest)

    def _blobs_of(self, artifact: Artifact) -> None:
        for descriptor, content in artifact.blobs:
            self._arrived(descriptor, self.repository.put_blob(descriptor, content))

    def _arrived(self, descriptor: Descriptor, arrival: Arrival) -> None:
        match arrival:
            case Arrival.UPLOADED:
                self.uploaded.append((descriptor.digest, descriptor.size))
                self._to_check.append(descriptor)
            case Arrival.MOUNTED:
                self.mounted.append(descriptor.digest)
            case Arrival.PRESENT:
                self.present.append(descriptor.digest)
            case other:
                assert_never(other)
