"""Push a cleared image with its attachments to a repository, verify it, and set its tags.

In an order in which clients always find a complete image, the former or the new one: layers and configs, manifests;
then signatures and attestations; then the immutable tag; then the floating tags, each move signed before it is made.
It can be repeated: what is there already is found and not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import field, replace
from pathlib import Path
from typing import TypeVar, assert_never

from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.blobs_to_push import (
    Attachments,
    LackingAttachments,
    artifact_manifests,
    attachment_blobs,
    image_blobs,
    image_manifests,
)
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Arrival, Repository, TagConflict, ignore_progress
from pipeline.mirror.settled_tags import SettledTags
from pipeline.mirror.tag_moves import (
    MOVE_ATTEMPTS,
    PUBLISH_CONCURRENCY,
    TagMover,
    resolve_kept,
    set_immutable_tag,
    tag_not_kept,
)
from pipeline.mirror.tag_statements import TagSigner
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.model.publication import MoveCause, Publication
from pipeline.oci import signature_tag
from pipeline.progress import Progress, task

_Input = TypeVar("_Input")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Upload:
    """A cleared image or index, with everything that is pushed with it.

    `images`: with the exact bytes of their documents, without those that the repository has; `source` returns the path
    of a layer; `attachments`: of each image and, if there is one, of the index; `floating`: tags to move, the most
    specific first; `version` and `created` (seconds since the epoch) make the immutable tag; `elsewhere`: blob →
    repositories of the mirror that may have it; `read_back`: read what was sent before a tag points to it, and do not
    take the mirror's answers for a proof of it; `standing`: tags that pointed to the image when the gate was asked,
    which are not resolved again if nothing is sent; `leave_moved_back`: see `TagMover`.
    """

    cleared: Cleared
    images: tuple[Image, ...]
    attachments: tuple[Attachments, ...]
    version: str
    created: int
    floating: tuple[str, ...]
    source: Callable[[Digest], Path]
    elsewhere: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)
    read_back: bool = False
    standing: frozenset[str] = frozenset()
    leave_moved_back: bool = False

    @property
    def digest(self) -> Digest:
        """The digest of the image or index."""
        return self.cleared.manifest.digest


def push(
    upload: Upload,
    repository: Repository,
    *,
    clear_again: Callable[[], Cleared],
    signer: TagSigner,
    progress: Progress,
) -> Publication:
    """Push an upload to a repository, and return what was sent, found and moved.

    `clear_again` asks the gate again when somebody else has moved a tag meanwhile; `signer` signs the tags' targets.

    Raises PublicationRefused `tag-immutable`, `tag-overtaken` and EnvironmentLacking `tag-not-kept` (all else is done
    then), VerificationError if content that is read back differs from what was sent, and as the repository does.
    """
    pushing = _Push(repository)
    mover = TagMover(repository, upload.version, MoveCause.PUBLISH, clear_again, signer.clock, signer)
    mover = replace(mover, leave_moved_back=upload.leave_moved_back)
    standing = () if upload.read_back else [tag for tag in upload.floating if tag in upload.standing]
    with SettledTags(mover, standing, upload.digest) as search:
        with task(progress, "publish", repository.url, total=_size(upload), unit="bytes") as running:
            plans = pushing.blobs(upload.images, upload.source, upload.elsewhere, upload.attachments, running.advance)
            pushing.manifests(upload.images, upload.cleared.manifest)
            pushing.attachments(plans)
        if upload.read_back:
            with task(progress, "check", repository.url):
                pushing.read_back(upload.attachments)
        settled = {} if pushing.changed else search.found()
    immutable = immutable_tag(upload.version, upload.created, upload.digest)
    set_now: tuple[str, ...] = ()
    if pushing.changed or upload.read_back or immutable not in upload.standing:
        set_now = set_immutable_tag(repository, immutable, upload.cleared)
    moved, found = mover.move([tag for tag in upload.floating if tag not in settled], upload.cleared, set_now)
    unmoved = tuple(tag for tag in upload.floating if tag in {*settled, *found})
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
        left=tuple(mover.left.items()),
        settled_until=_least(upload.floating, {**settled, **mover.confirmed_until}),
    )


def _least(tags: Sequence[str], until: Mapping[str, int]) -> int:
    """Return the least time of all tags, 0 where one has none."""
    return min((until.get(tag, 0) for tag in tags), default=0)


@dataclass(frozen=True, slots=True)
class PushedImage:
    """An image that was pushed without a tag, and the (digest, bytes) that were sent."""

    digest: Digest
    uploaded: tuple[tuple[Digest, int], ...]


def push_image(
    image: Image,
    attachments: Sequence[Attachments],
    repository: Repository,
    *,
    source: Callable[[Digest], Path],
    elsewhere: Mapping[Digest, tuple[str, ...]],
    progress: Progress,
    read_back: bool = False,
) -> PushedImage:
    """Push an image that will be a member of an index, with its attachments and no tag.

    So clients do not find it, and a pruning takes it if there never is an index. `read_back`: see `Upload`. Raises
    VerificationError if content that is read back differs from what was sent.
    """
    pushing = _Push(repository)
    total = sum(layer.blob.size for layer in image.layers)
    with task(progress, "publish", repository.url, total=total, unit="bytes") as running:
        plans = pushing.blobs((image,), source, elsewhere, attachments, running.advance)
        pushing.manifests((image,), Manifest(image.manifest_descriptor.media_type, image.manifest_bytes))
        pushing.attachments(plans)
    if read_back:
        with task(progress, "check", repository.url):
            pushing.read_back(attachments)
    return PushedImage(image.digest, tuple(pushing.uploaded))


def push_attachments(
    attachments: Sequence[Attachments], repository: Repository, *, progress: Progress, read_back: bool = False
) -> tuple[tuple[tuple[Digest, int], ...], tuple[Digest, ...]]:
    """Push the attachments of images that are there already; no tag moves.

    Returns the (digest, bytes) that were sent, and the new referrers. `read_back`: see `Upload`. Raises
    VerificationError if content that is read back differs from what was sent.
    """
    pushing = _Push(repository)
    with task(progress, "publish", repository.url):
        pushing.attachments(pushing.blobs((), _no_layer, {}, attachments, ignore_progress))
    if read_back:
        with task(progress, "check", repository.url):
            pushing.read_back(attachments)
    return tuple(pushing.uploaded), tuple(digest for _, digest in pushing.attached)


def _size(upload: Upload) -> int:
    return sum(layer.blob.size for image in upload.images for layer in image.layers)


def _no_layer(digest: Digest) -> Path:
    raise AssertionError(f"attachments have no layer {digest}")


@dataclass(slots=True)
class _Push:
    """A push in progress: what was sent, mounted, found, attached, and is to be verified."""

    repository: Repository
    uploaded: list[tuple[Digest, int]] = field(default_factory=list)
    mounted: list[Digest] = field(default_factory=list)
    present: list[Digest] = field(default_factory=list)
    attached: list[tuple[Digest, Digest]] = field(default_factory=list)
    """(subject, referrer) of each attachment that was not listed before."""
    _to_check: list[Descriptor] = field(default_factory=list)
    _documents: list[Manifest] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True if anything was put on the mirror."""
        return bool(self.uploaded or self.mounted)

    def blobs(
        self,
        images: Sequence[Image],
        source: Callable[[Digest], Path],
        elsewhere: Mapping[Digest, tuple[str, ...]],
        attachments: Sequence[Attachments],
        advance: Callable[[int], None],
    ) -> tuple[LackingAttachments, ...]:
        """Put layers, configs and the blobs of attachments, several at a time, each once.

        Returns the attachments that the repository lacks. They are found and signed while layers are put.
        """

        def send(descriptor: Descriptor, content: bytes | Path, new: bool) -> tuple[Descriptor, Arrival]:
            known = elsewhere.get(descriptor.digest, ())
            arrival = self.repository.put_blob(descriptor, content, elsewhere=known, new=new)
            advance(descriptor.size)
            return descriptor, arrival

        own = image_blobs(images, source).values()
        sending: list[Future[tuple[Descriptor, Arrival]]] = []
        with ThreadPoolExecutor(PUBLISH_CONCURRENCY, "publish") as pool:
            try:
                planning = [pool.submit(self._plan, one) for one in attachments]
                sending += [pool.submit(send, descriptor, content, False) for descriptor, content in own]
                plans = tuple(one.result() for one in planning)
                sending += [pool.submit(send, *one) for one in attachment_blobs(plans).values()]
                for one in sending:
                    self._arrived(*one.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return plans

    def _plan(self, attachments: Attachments) -> LackingAttachments:
        """Sign what the repository lacks of the attachments of one subject."""
        signed = self.repository.manifest(signature_tag(attachments.subject))
        signature = attachments.signature(self.repository, signed)
        return LackingAttachments(attachments, signed, signature, attachments.attestations(self.repository))

    def manifests(self, images: Sequence[Image], top: Manifest) -> None:
        """Put manifests by digest, an index `top` after the manifests that it lists."""
        for manifest in image_manifests(images, top):
            if self.repository.put_manifest(manifest):
                self._sent(manifest)
            else:
                self.present.append(manifest.digest)

    def attachments(self, plans: Sequence[LackingAttachments]) -> None:
        """Put signatures under their tags, and attach the attestations of each manifest."""
        wanted = [plan for plan in plans if plan.attestations]
        with ThreadPoolExecutor(PUBLISH_CONCURRENCY, "attach") as pool:
            signing = [pool.submit(self._sign, plan) for plan in plans]
            attaching = [
                pool.submit(self.repository.attach_all, artifact_manifests(plan.attestations)) for plan in wanted
            ]
            for signature in [one.result() for one in signing]:
                if signature is not None:
                    self._sent(signature)
            for one in attaching:
                one.result()
        for plan in wanted:
            for manifest in artifact_manifests(plan.attestations):
                self.attached.append((plan.attachments.subject, manifest.digest))
                self._sent(manifest)
        self._keep_signatures(plans)

    def read_back(self, attachments: Sequence[Attachments]) -> None:
        """Read back and verify everything that was sent, before any tag points to it.

        Also whether all attachments are listed as referrers. Raises VerificationError with all problems.
        """
        problems: list[Problem] = []

        def check(descriptor: Descriptor) -> tuple[Problem, ...]:
            try:
                self.repository.check_blob(descriptor)
            except VerificationError as error:
                return error.problems
            return ()

        for found in self._in_parallel(check, self._to_check):
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
        """Attach again what was attached to `subject` and is not listed; return what stays unlisted.

        Where clients maintain the referrers index, a slow one may have overwritten our entry.
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

    def _sign(self, plan: LackingAttachments) -> Manifest | None:
        """Put a signature under its tag, and return the manifest that has it; None if it was there.

        Another publisher's that came there meanwhile is kept beside it.
        """
        tag = signature_tag(plan.attachments.subject)
        present, artifact = plan.signed, plan.signature
        for _ in range(MOVE_ATTEMPTS):
            if artifact is None:
                return None
            try:
                self.repository.put_auxiliary(tag, artifact.manifest, present.digest if present else None)
            except TagConflict:
                present = self.repository.manifest(tag)
                artifact = plan.attachments.signature(self.repository, present)
                for descriptor, content in artifact.blobs if artifact else ():
                    self._arrived(descriptor, self.repository.put_blob(descriptor, content))
                continue
            return artifact.manifest
        raise self._signed_by_others(plan)

    def _keep_signatures(self, plans: Sequence[LackingAttachments]) -> None:
        """Put signatures again that other publishers have overwritten.

        Only where a mirror cannot compare and swap.
        """
        signed = [plan for plan in plans if plan.signature is not None]
        for _ in range(MOVE_ATTEMPTS):
            if not signed or not self.repository.await_writers():
                return
            lost = []
            for plan in signed:
                tag, sent = signature_tag(plan.attachments.subject), {digest for digest, _ in self.uploaded}
                if self.repository.resolve(tag) in sent:
                    continue
                present = self.repository.manifest(tag)
                again = LackingAttachments(
                    plan.attachments, present, plan.attachments.signature(self.repository, present), ()
                )
                if again.signature is not None:
                    lost.append(again)
            for plan in lost:
                for descriptor, content in plan.signature.blobs if plan.signature else ():
                    self._arrived(descriptor, self.repository.put_blob(descriptor, content))
                signature = self._sign(plan)
                if signature is not None:
                    self._sent(signature)
            signed = lost
        tag = signature_tag(signed[0].attachments.subject)
        if resolve_kept(self.repository, tag) is None:
            raise tag_not_kept(self.repository, tag)
        raise self._signed_by_others(signed[0])

    def _signed_by_others(self, plan: LackingAttachments) -> PublicationRefused:
        return PublicationRefused(
            "tag-overtaken",
            f"other publishers keep signing {plan.attachments.subject} at the same time",
            place=self.repository.url,
            hint="publish again when they have finished",
        )

    def _in_parallel(self, do: Callable[[_Input], _Result], inputs: Sequence[_Input]) -> list[_Result]:
        with ThreadPoolExecutor(PUBLISH_CONCURRENCY, "publish") as pool:
            return list(pool.map(do, inputs))

    def _sent(self, manifest: Manifest) -> None:
        self.uploaded.append((manifest.digest, len(manifest.data)))
        self._documents.append(manifest)

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
