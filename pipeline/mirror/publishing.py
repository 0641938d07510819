"""Publishing: the order in which things arrive, so that whoever pulls finds either what was there before or all of it.

Blobs, config, manifests; then signatures and attestations; then the tag that never moves; then the floating tags, each
move signed before it is made. All of it can be done again: what is there already is found and not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused, VerificationError
from pipeline.mirror.gate import Cleared
from pipeline.mirror.repository import Arrival, Overtaken, Repository
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import TagSigner
from pipeline.mirror.tags import immutable_tag
from pipeline.model.artifact import Artifact, Manifest
from pipeline.model.image import Descriptor, Image
from pipeline.model.publication import Move, Publication, Why
from pipeline.oci import signature_tag
from pipeline.progress import Progress, task

PARALLEL = 4
"""Blobs on their way at the same time: enough to hide a registry's answering times, few enough for its limits."""

ATTEMPTS = 5
"""How often a tag is tried to be moved that others move at the same time."""


class Companions(Protocol):
    """What accompanies one manifest or index: its signature, and what is attested of it."""

    @property
    def subject(self) -> Digest:
        """What it speaks of."""

    def signature(self, repository: Repository, present: Manifest | None) -> Artifact | None:
        """The signature's manifest for its tag, with what is `present` there kept; None: it is signed already."""

    def attestations(self, repository: Repository) -> tuple[Artifact, ...]:
        """Those that the repository does not list yet."""


@dataclass(frozen=True, slots=True)
class Consignment:
    """Something that was cleared, with all that goes with it. `images` have their exact documents, and their layers
    are found by `source`; `companions` are those of each image and, if there is one, of the index. `floating`: tags
    that shall follow, the most particular first. `version` and `created` make the immutable tag."""

    cleared: Cleared
    images: tuple[Image, ...]
    companions: tuple[Companions, ...]
    version: str
    created: int
    floating: tuple[str, ...]
    source: Callable[[Digest], Path]
    elsewhere: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The image's digest, or the index's."""
        return self.cleared.manifest.digest


def publish(
    consignment: Consignment,
    repository: Repository,
    *,
    clear_again: Callable[[], Cleared],
    signer: TagSigner,
    progress: Progress,
) -> Publication:
    """Bring a consignment into a repository. `clear_again` asks the gate anew when somebody else has moved a tag
    meanwhile; `signer` signs where tags point.

    Raises PublicationRefused `tag-immutable`, `tag-overtaken` (all else is done then), VerificationError if what is
    read back is not what was sent, and whatever the repository raises.
    """
    delivery = _Delivery(repository)
    with task(progress, "publish", repository.url, total=_size(consignment), unit="bytes") as running:
        delivery.blobs(consignment, running.advance)
        delivery.manifests(consignment)
        delivery.companions(consignment.companions)
    with task(progress, "check", repository.url):
        delivery.read_back(consignment.companions)
    immutable = immutable_tag(consignment.version, consignment.created, consignment.digest)
    set_for_ever(repository, immutable, consignment.cleared)
    mover = Mover(repository, consignment.version, Why.PUBLISH, clear_again, signer.clock, signer)
    moved, unmoved = mover.move(consignment.floating, consignment.cleared)
    return Publication(
        repository=repository.url,
        digest=consignment.digest,
        immutable=immutable,
        moved=moved,
        unmoved=unmoved,
        uploaded=tuple(delivery.uploaded),
        mounted=tuple(delivery.mounted),
        present=tuple(delivery.present),
        attached=tuple(digest for _, digest in delivery.attached),
        limits=consignment.cleared.limits,
    )


def accompany(
    companions: Sequence[Companions], repository: Repository, *, progress: Progress
) -> tuple[tuple[tuple[Digest, int], ...], tuple[Digest, ...]]:
    """Bring what accompanies images that are there already: the (digest, bytes) that were sent, and the new referrers.
    No tag moves. Raises VerificationError if what is read back is not what was sent."""
    delivery = _Delivery(repository)
    with task(progress, "publish", repository.url):
        delivery.companions(companions)
    with task(progress, "check", repository.url):
        delivery.read_back(companions)
    return tuple(delivery.uploaded), tuple(digest for _, digest in delivery.attached)


def _size(consignment: Consignment) -> int:
    return sum(layer.blob.size for image in consignment.images for layer in image.layers)


@dataclass(slots=True)
class _Delivery:
    """What has arrived so far, and how."""

    repository: Repository
    uploaded: list[tuple[Digest, int]] = field(default_factory=list)
    mounted: list[Digest] = field(default_factory=list)
    present: list[Digest] = field(default_factory=list)
    attached: list[tuple[Digest, Digest]] = field(default_factory=list)
    """(subject, referrer)"""
    _to_check: list[Descriptor] = field(default_factory=list)
    _documents: list[Manifest] = field(default_factory=list)

    def blobs(self, consignment: Consignment, advance: Callable[[int], None]) -> None:
        """Layers and configs, several at a time, each once."""
        wanted: dict[Digest, tuple[Descriptor, bytes | Path]] = {}
        for image in consignment.images:
            for layer in image.layers:
                wanted[layer.blob.digest] = (layer.blob, consignment.source(layer.blob.digest))
            wanted[image.config_descriptor.digest] = (image.config_descriptor, image.config_bytes)

        def send(one: tuple[Descriptor, bytes | Path]) -> tuple[Descriptor, Arrival]:
            descriptor, content = one
            elsewhere = consignment.elsewhere.get(descriptor.digest, ())
            arrival = self.repository.put_blob(descriptor, content, elsewhere=elsewhere)
            advance(descriptor.size)
            return descriptor, arrival

        with ThreadPoolExecutor(PARALLEL, "publish") as pool:
            for descriptor, arrival in pool.map(send, wanted.values()):
                self._arrived(descriptor, arrival)

    def manifests(self, consignment: Consignment) -> None:
        """Manifests by digest; an index after what it lists."""
        own = [Manifest(image.manifest_descriptor.media_type, image.manifest_bytes) for image in consignment.images]
        top = consignment.cleared.manifest
        for manifest in [*own, *([] if any(one.digest == top.digest for one in own) else [top])]:
            self._manifest(manifest)

    def companions(self, companions: Sequence[Companions]) -> None:
        """Signature and attestations of each."""
        for one in companions:
            self._sign(one)
            for artifact in one.attestations(self.repository):
                self._blobs_of(artifact)
                if self.repository.attach(artifact.manifest):
                    self.attached.append((one.subject, artifact.manifest.digest))
                    self.uploaded.append((artifact.manifest.digest, len(artifact.manifest.data)))
                self._documents.append(artifact.manifest)

    def read_back(self, companions: Sequence[Companions]) -> None:
        """What was sent is read from the mirror and held against its digests, before any tag points to it. What had
        been there was checked when it came, and is only asked for. Raises VerificationError, of all at once."""
        problems: list[Problem] = []

        def check(descriptor: Descriptor) -> tuple[Problem, ...]:
            try:
                self.repository.check_blob(descriptor)
            except VerificationError as error:
                return error.problems
            return ()

        with ThreadPoolExecutor(PARALLEL, "check") as pool:
            for found in pool.map(check, self._to_check):
                problems += found
        for manifest in self._documents:
            if self.repository.manifest(manifest.digest) != manifest:
                problems.append(
                    Problem("manifest-not-kept", f"{manifest.digest} was sent and is not there", self.repository.url)
                )
        for one in companions:
            problems += [
                Problem("referrer-not-listed", f"{digest} was attached and is not listed", self.repository.url)
                for digest in self._unlisted(one.subject)
            ]
        if problems:
            raise VerificationError.of(problems)

    def _unlisted(self, subject: Digest) -> set[Digest]:
        """What was attached to `subject` and is not listed, attached once more: where lists of referrers are kept by
        those who write them, a slow one may have undone it."""
        ours = {digest for about, digest in self.attached if about == subject}
        missing = ours
        for _ in range(ATTEMPTS):
            listed = {referrer.descriptor.digest for referrer in self.repository.referrers(subject)}
            missing = ours - listed
            if not missing:
                break
            for manifest in self._documents:
                if manifest.digest in missing:
                    self.repository.attach(manifest)
        return missing

    def _sign(self, one: Companions) -> None:
        tag = signature_tag(one.subject)
        for _ in range(ATTEMPTS):
            present = self.repository.manifest(tag)
            artifact = one.signature(self.repository, present)
            if artifact is None:
                return
            self._blobs_of(artifact)
            self._manifest(artifact.manifest)
            try:
                self.repository.put_auxiliary(tag, artifact.manifest, present.digest if present else None)
            except Overtaken:  # another publisher signs the same: its signature is kept beside ours
                continue
            if not self.repository.overtaken({tag: artifact.manifest.digest}):
                return
        raise PublicationRefused(
            "tag-overtaken",
            f"others sign {one.subject} at the same time, again and again",
            place=self.repository.url,
            hint="publish again when they are done",
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


# --- tags ----------------------------------------------------------------------------------------------


def set_for_ever(repository: Repository, tag: str, cleared: Cleared) -> None:
    """Set an immutable tag, or find it set to the same. Raises PublicationRefused `tag-immutable`."""
    found = repository.resolve(tag)
    if found in (None, cleared.manifest.digest):
        try:
            repository.point(tag, cleared, found)  # also where it points there already: see `Mover`
            return
        except Overtaken as error:
            found = error.found
    if found != cleared.manifest.digest:
        raise PublicationRefused(
            "tag-immutable",
            f"{tag} points to {found}, not to {cleared.manifest.digest}, and such a tag is never moved",
            place=repository.url,
            hint="somebody pushed there by other means: find out who, and remove that tag if it is wrong",
        )


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves floating tags of a repository, each move signed before it is made. `version` is that of what they shall
    point to, `why` goes into the history; `clear_again` asks the gate anew when a tag points to something else than it
    was told; `clock` gives seconds since the epoch. `signer` is None where what was signed elsewhere was carried here;
    `identity`: the name under which tags are signed, if it is not the repository's own."""

    repository: Repository
    version: str
    why: Why
    clear_again: Callable[[], Cleared]
    clock: Callable[[], float]
    signer: TagSigner | None
    identity: str = ""

    def move(self, tags: Sequence[str], cleared: Cleared) -> tuple[tuple[Move, ...], tuple[str, ...]]:
        """Move tags to what was cleared; those that point there already are left alone, and what is signed of them is
        renewed if it is missing or old. Returns the moves, and the tags left alone.

        Each tag is a step of its own: one that cannot be moved does not keep the others from it. Raises
        PublicationRefused of all that could not.
        """
        moved: list[Move] = []
        unmoved: list[str] = []
        problems: list[Problem] = []
        for tag in tags:
            try:
                move = self._move(tag, cleared)
            except PublicationRefused as error:
                problems += error.problems
                continue
            if move is None:
                unmoved.append(tag)
            else:
                moved.append(move)
        wanted = cleared.manifest.digest
        lost = self.repository.overtaken({move.tag: move.after for move in moved})
        problems += (problem for tag in lost for problem in self._overtaken(tag, wanted, None).problems)
        for tag in (*(move.tag for move in moved if move.tag not in lost), *unmoved):
            self._settle(tag, wanted)
        if problems:
            raise PublicationRefused.of(problems)
        return tuple(moved), tuple(unmoved)

    def _move(self, tag: str, cleared: Cleared) -> Move | None:
        wanted = cleared.manifest.digest
        found = self.repository.resolve(tag)
        for _ in range(ATTEMPTS):
            move = None
            if found != wanted:
                if not self._judged(cleared, tag, found):
                    cleared = self.clear_again()
                move = self._announced(tag, found, wanted)
            try:
                # Also where it points there already: one who was killed just after he moved it may have left it out of
                # the list of tags that a mirror of files keeps, and nothing is written if all is in order.
                self.repository.point(tag, cleared, found)
            except Overtaken as error:
                if error.found == wanted:
                    return None
                if error.written:
                    raise self._overtaken(tag, wanted, error.found) from None
                found = error.found  # somebody was quicker
            else:
                return move
        raise self._overtaken(tag, wanted, found)

    def _announced(self, tag: str, found: Digest | None, wanted: Digest) -> Move:
        move = Move(tag, found, wanted, int(self.clock() * 1000), self.why, self.version)
        if self.signer is not None:
            self._signed_tag(tag, self.signer).announce(move)
        return move

    def _settle(self, tag: str, wanted: Digest) -> None:
        if self.signer is not None:
            self._signed_tag(tag, self.signer).settle(wanted, self.version, self.why)

    def _signed_tag(self, tag: str, signer: TagSigner) -> SignedTag:
        return SignedTag(self.repository, self.identity or self.repository.identity, tag, signer)

    def _judged(self, cleared: Cleared, tag: str, found: Digest | None) -> bool:
        """Did the gate know what the tag points to? What may follow something else is for it to say again. Who goes
        back on purpose is not asked."""
        if found is None or self.why is Why.ROLLBACK:
            return True
        return any((now.tag, now.digest) == (tag, found) for now in cleared.current)

    def _overtaken(self, tag: str, wanted: Digest, found: Digest | None) -> PublicationRefused:
        url = self.repository.url
        elsewhere = f"to {found} " if found else ""
        return PublicationRefused(
            "tag-overtaken",
            f"somebody else moved '{tag}' {elsewhere}at the same time; {wanted} is there, but not under that tag",
            place=url,
            hint=f"look at `relbuild history {url}:{tag}`, then promote the one that shall stand",
        )
