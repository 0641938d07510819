"""Verify what a mirror holds to the last byte, and clear it by what is attested there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, VerificationError
from pipeline.mirror.address import Address
from pipeline.mirror.gate import AttestedEvidence, Candidate, Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, SignedIdentity, known_names
from pipeline.mirror.tag_check import TagStanding, check_tag
from pipeline.mirror.tag_statements import TagMemory
from pipeline.mirror.verification import Verified
from pipeline.mirror.verification import verify_image as verify_held
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access

VERIFY_ATTEMPTS = 3
"""Attempts to verify a reference that may be moved meanwhile."""


def verify_reference(
    reference: Address,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    contents: bool = True,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
) -> Verified:
    """Verify what a reference names.

    Verified are every byte (without `contents`, of layers only that they are there), signatures and the name in them,
    attestations, the recorded answers once more, and of a tag that may move that it points where its newest signed move
    says. Raises UsageError `reference-missing`, VerificationError.
    """
    with mirror_access(build_env).repository(reference) as repository:
        try:
            expected = identity.of(repository)
            return verify_in_repository(
                repository,
                reference.reference,
                key,
                build_env,
                contents=contents,
                expected=expected,
                allow_stale=allow_stale,
            )
        except PublicationRefused as refused:  # nobody wants to publish here: what stands there does not hold
            raise VerificationError.of(refused.problems) from refused


def verify_in_repository(
    repository: Repository,
    reference: Digest | str,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    contents: bool,
    expected: SignedIdentity | None,
    allow_stale: bool = False,
) -> Verified:
    """Verify what a reference names in an open repository, before a tag is moved to it.

    It is as `verify`; PublicationRefused is raised if the recorded answers do not carry the move.
    """
    for attempt in reversed(range(VERIFY_ATTEMPTS)):
        found = verify_held(
            repository,
            reference,
            key,
            expected,
            judge=lambda held: clear_published(held, (), repository, key, MirrorRules()),
            progress=build_env.progress,
            contents=contents,
        )
        if isinstance(reference, Digest):
            return found
        names = (*known_names(repository, expected), *found.identities)
        try:
            standing = check_signed_tag(
                repository, reference, found, key, build_env, names=names, allow_stale=allow_stale
            )
            return replace(found, tag=standing)
        except VerificationError:
            if not attempt or repository.resolve(reference) == found.held.digest:
                raise  # else it was moved while it was verified
    raise AssertionError("the last attempt returns or raises")


def check_signed_tag(
    repository: Repository,
    tag: str,
    found: Verified,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    names: Sequence[str],
    allow_stale: bool,
) -> TagStanding | None:
    """Check the tag of what was `found` against what is signed of it, and remember that.

    The tag points to what was `found`; what is signed is under one of `names`. None is returned for the tag that never
    moves, whose name says what it points to. Raises VerificationError as `check_tag`.
    """
    held = found.held
    if tag == immutable_tag(held.version, held.created, held.digest):
        return None
    memory = TagMemory(build_env.store)
    standing = check_tag(
        repository,
        tag,
        held.digest,
        key,
        names,
        now=int(build_env.clock() * 1000),
        seen=memory.seen(repository.url, tag),
        allow_stale=allow_stale,
    )
    memory.see(repository.url, tag, standing.number)
    return standing


def clear_published(
    held: MirroredImage, tags: tuple[str, ...], repository: Repository, key: VerifyingKey, rules: MirrorRules
) -> Cleared:
    """Clear what a mirror holds by the evidence that `key` attests there.

    Going back is what a person wants who names an older image, so what `tags` point to now is not asked about.
    """
    warrants = [AttestedEvidence(image.digest, repository, key) for image in held.images]
    candidates = tuple(
        Candidate(image.manifest_bytes, image.config_bytes, warrant.evidence, warrant)
        for image, warrant in zip(held.images, warrants, strict=True)
    )
    # The keeper's rules are on repositories; a layout has no name, and there the product's is taken.
    return Cleared(repository.name or held.images[0].name, tags, held.manifest, candidates, rules)
