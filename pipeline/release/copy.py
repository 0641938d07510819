"""Copy images with signatures, referrers and tags to another mirror or a layout (air gap)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError, UsageError, VerificationError, join_errors
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.attestations import NameSignature
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_copy import CopiedArtifacts, copy_image, copy_statements
from pipeline.mirror.image_tags import immutable_tag, named_digest_prefix
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.push import push_attachments
from pipeline.mirror.signed_again import sign_again
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, SignedIdentity, known_names
from pipeline.mirror.tag_check import TagStanding
from pipeline.mirror.tag_moves import TagMover, refuse_immutable, set_immutable_tag
from pipeline.mirror.tag_statements import list_statements, tidy_statements
from pipeline.mirror.verification import Verified
from pipeline.model.publication import NO_HOST, Move, MoveCause
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import (
    current_images,
    mirror_access,
    refuse_reserved_tag,
    tag_signer,
)
from pipeline.release.verify_reference import check_signed_tag, clear_published, verify_in_repository


@dataclass(frozen=True, slots=True)
class CopyResult:
    """Result of copying one image or index: target repository, digest, tags, what was sent.

    `former_name`: the name of the source's repository, if the target's is another.
    """

    repository: str
    digest: Digest
    tags: tuple[str, ...]
    moved: tuple[Move, ...]
    copied: CopiedArtifacts
    former_name: str = ""


def _ignore(result: CopyResult) -> None:
    pass


def copy(
    source: Address,
    target: Address,
    key: SigningKey | VerifyingKey,
    rules: MirrorRules,
    build_env: BuildEnvironment,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
    former: tuple[VerifyingKey, ...] = (),
    finished: Callable[[CopyResult], None] = _ignore,
) -> tuple[CopyResult, ...]:
    """Verify an image and copy it to another mirror or layout.

    Without tag or digest in `source`, the images of all its tags are copied.

    All signatures and referrers are copied too. `identity` is the source's; an image in a layout, which has no name,
    must be signed under a name whose last part is the target's.

    With a private key, the copy is also signed under the target's name, and so are the moves of its tags. With a public
    key, the target is a mirror of the source: the signed moves of its tags are copied, and it verifies under the
    source's name (`--as`).

    What `former` keys of the publisher signed on the source counts as well; with a private key it is signed with that.

    `finished` is called with each result at once, also where an error is raised later.

    Raises UsageError, VerificationError, PublicationRefused: where all tags are copied, with all that was refused or
    did not verify, after the rest was copied.
    """
    access = mirror_access(build_env)
    with access.repository(source) as here:
        target.form.require_place(target, here.name or "NAME")
        with access.repository(target, create=True, write=True) as there:
            expected = _expected(here, there, identity)
            copy_job = _CopyJob(here, there, key, rules, build_env, expected, allow_stale, former)
            wanted = _wanted(here, source, target)
            if source.tag or source.digest is not None:
                done = tuple(one for digest, tags in wanted for one in copy_job.copy_one(digest, tags))
                for one in done:
                    finished(one)
                return done
            return _copy_all(copy_job, dict(wanted), finished)


TagPairs = tuple[tuple[str, str], ...]
"""(tag on the source, tag on the target); the first is "" where the source was given by digest."""


def _wanted(here: Repository, source: Address, target: Address) -> list[tuple[Digest, TagPairs]]:
    """Return the digests to copy, with the tags of each."""
    if target.tag:
        refuse_reserved_tag(target.tag)
    if source.digest is not None:
        return [(source.digest, (("", target.tag),) if target.tag else ())]
    by_digest: dict[Digest, list[tuple[str, str]]] = {}
    for tag in (source.tag,) if source.tag else [tag for tag in here.tags() if not is_auxiliary(tag)]:
        digest = here.resolve(tag)
        if digest is None:
            raise here.misplaced_tag(tag) or UsageError(
                "reference-missing",
                f"{here.url} has no tag '{tag}'",
                place=here.url,
                hint="choose another tag; without one, all tags are copied",
            )
        by_digest.setdefault(digest, []).append((tag, target.tag or tag))
    return [(digest, tuple(tags)) for digest, tags in sorted(by_digest.items())]


def _copy_all(
    copy_job: _CopyJob, wanted: dict[Digest, TagPairs], finished: Callable[[CopyResult], None]
) -> tuple[CopyResult, ...]:
    """Copy the images of all tags; what is refused or does not verify does not stop the rest.

    Raises the first PublicationRefused or VerificationError with the problems of all; another error, which ends it, has
    these behind its own.
    """
    done: list[CopyResult] = []
    refused: list[RelbuildError] = []
    images = {digest.short: digest for digest in wanted}
    for digest, tags in wanted.items():
        allowed = []
        for tag, called in tags:
            named = images.get(named_digest_prefix(called) or "")
            if named is not None and named != digest:
                refused.append(_moved_immutable(copy_job.here, tag, digest, named))
                continue
            try:
                refuse_immutable(copy_job.there, called, digest, carried=tag == called)
            except PublicationRefused as error:
                refused.append(error)
            else:
                allowed.append((tag, called))
        try:
            for one in copy_job.copy_one(digest, tuple(allowed), refused):
                done.append(one)
                finished(one)
        except (PublicationRefused, VerificationError) as error:
            refused.append(error)
        except RelbuildError as error:
            raise join_errors([error, *refused]) from error
    if refused:
        raise join_errors(refused)
    return tuple(done)


def _moved_immutable(here: Repository, tag: str, found: Digest, named: Digest) -> PublicationRefused:
    """Make the error of an immutable tag that an older version of relbuild moved."""
    return PublicationRefused(
        "tag-immutable",
        f"'{tag}' is the immutable tag of {named}, but points to {found}: it was not copied",
        place=here.url,
        hint=f"`relbuild promote {here.url}@{named} --to {tag}` sets it right on the source",
    )


def _expected(here: Repository, there: Repository, identity: ExpectedIdentity) -> SignedIdentity | None:
    expected = identity.of(here)
    if expected is None and there.name:
        return SignedIdentity(f"{NO_HOST}/{there.name.rpartition('/')[2]}")
    return expected


@dataclass(frozen=True, slots=True)
class _CopyJob:
    here: Repository
    there: Repository
    key: SigningKey | VerifyingKey
    rules: MirrorRules
    build_env: BuildEnvironment
    expected: SignedIdentity | None
    allow_stale: bool
    former: tuple[VerifyingKey, ...] = ()

    def copy_one(
        self, digest: Digest, tags: TagPairs, refused: list[RelbuildError] | None = None
    ) -> tuple[CopyResult, ...]:
        """Copy one image or index: verify it, copy it, clear it at the gate, then set its tags.

        With `refused`, a tag that does not point where its newest signed move says is added there with its error, and
        an image is not copied, and no result returned, if no tag is left.
        """
        found = verify_in_repository(
            self.here, digest, self._public, self.build_env, contents=True, expected=self.expected
        )
        signed, checked_tags = self._check_source_tags(found, tags, refused)
        return (self._copy_verified(found, signed, checked_tags),) if signed or not tags else ()

    def _copy_verified(self, found: Verified, tags: TagPairs, checked_tags: Sequence[TagStanding]) -> CopyResult:
        work, public, held = self.build_env, self._public, found.held
        own = immutable_tag(held.version, held.created, held.digest)
        floating = tuple(there for _, there in tags if there != own)
        for tag, called in tags:
            if called != own:
                refuse_immutable(self.there, called, held.digest, carried=tag == called)
        copied = copy_image(held, self.here, self.there, store=work.store, progress=work.progress)
        if isinstance(self.key, SigningKey):
            signed = [NameSignature(one.about.digest, self.key) for one in (*found.manifests, *found.sources)]
            push_attachments(signed, self.there, progress=work.progress)
            sign_again(found, self.there, self.key, public, work.progress)

        def clear() -> Cleared:
            current = current_images(self.there, floating, held.digest)
            return replace(clear_published(held, (*floating, own), self.there, public, self.rules), current=current)

        cleared = clear()
        set_now = set_immutable_tag(self.there, own, cleared)
        for standing in checked_tags:
            copy_statements(self.here, self.there, standing, public, renewals=False)
        signer = tag_signer(self.key, self.rules, work, self.former) if isinstance(self.key, SigningKey) else None
        mover = TagMover(self.there, held.version, MoveCause.COPY, clear, work.clock, signer)
        moves, _ = mover.move(floating, cleared, set_now)
        for standing in checked_tags:
            copy_statements(self.here, self.there, standing, public, renewals=True)
            for one in list_statements(self.there, standing.identity, standing.tag):
                if one.statement.number == standing.number:
                    tidy_statements(self.there, one.statement, public, int(work.clock() * 1000))
        former, name = (one.name.rpartition("/")[2] for one in (self.here, self.there))
        renamed = former if former and name and former != name else ""
        return CopyResult(self.there.url, held.digest, (own, *floating), moves, copied, renamed)

    @property
    def _public(self) -> VerifyingKey:
        own = self.key.public if isinstance(self.key, SigningKey) else self.key
        return replace(own, former=self.former)

    def _check_source_tags(
        self, found: Verified, tags: TagPairs, refused: list[RelbuildError] | None
    ) -> tuple[TagPairs, list[TagStanding]]:
        """Check that every tag of the source points where its newest signed move says.

        Returns those that do, and of these the tags whose signed moves are to be copied, because without a private key
        none can be signed. Others are added to `refused`, or raised where that is None.
        """
        good: list[tuple[str, str]] = []
        checked: list[TagStanding] = []
        for tag, called in tags:
            try:
                standing = self._check_source_tag(found, tag, called)
            except VerificationError as error:
                if refused is None:
                    raise
                refused.append(error)
                continue
            good.append((tag, called))
            if standing is not None:
                checked.append(standing)
        return tuple(good), checked

    def _check_source_tag(self, found: Verified, tag: str, called: str) -> TagStanding | None:
        names = (*known_names(self.here, self.expected), *found.identities)
        own = immutable_tag(found.held.version, found.held.created, found.held.digest)
        standing = None
        if tag:
            standing = check_signed_tag(
                self.here, tag, found, self._public, self.build_env, names=names, allow_stale=self.allow_stale
            )
        if isinstance(self.key, SigningKey) or called == own:
            return None
        if standing is None or called != tag:
            raise UsageError(
                "key-not-private",
                f"no signed statement says that '{called}' points to {found.held.digest}",
                place=f"{self.there.url}:{called}",
                hint="give the private key, or copy to the same tag name, which copies the signed moves",
            )
        return standing
