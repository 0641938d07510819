"""Verify what a mirror holds to the last byte, and clear it by what is attested there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, VerificationError
from pipeline.mirror.address import Address
from pipeline.mirror.gate import AttestedEvidence, Candidate, Cleared
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, SignedIdentity, known_names
from pipeline.mirror.tag_check import TagStanding, check_tag
from pipeline.mirror.tag_statements import TagMemory, recent_statements
from pipeline.mirror.verification import Verified
from pipeline.mirror.verification import verify_image as verify_held
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access

VERIFY_ATTEMPTS = 10
"""Attempts to verify a reference that is moved meanwhile: each takes another move."""


class _TagMovedError(Exception):
    """The tag was moved while it was checked."""


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
    for _ in range(VERIFY_ATTEMPTS):
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
        with contextlib.suppress(_TagMovedError):
            standing = _standing(repository, reference, found, key, build_env, names=names, allow_stale=allow_stale)
            return replace(found, tag=standing)
    raise _moving(repository, str(reference))


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
    moves, whose name says what it points to. Raises VerificationError as `check_tag`, EnvironmentLacking `tag-moving`.
    """
    try:
        return _standing(repository, tag, found, key, build_env, names=names, allow_stale=allow_stale)
    except _TagMovedError:
        raise _moving(repository, tag) from None


def _standing(
    repository: Repository,
    tag: str,
    found: Verified,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    names: Sequence[str],
    allow_stale: bool,
) -> TagStanding | None:
    """Check the tag; an error counts only if nothing moved between two looks.

    The tag and what is signed of it are read one after the other, and may have been moved there and back meanwhile.
    """
    held = found.held
    if tag == immutable_tag(held.version, held.created, held.digest):
        return None
    memory = TagMemory(build_env.store)
    before: tuple[object, ...] | None = None
    for _ in range(VERIFY_ATTEMPTS):
        try:
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
        except VerificationError:
            statements = (recent_statements(repository, name, tag, key) for name in dict.fromkeys(names))
            state = (repository.resolve(tag), *(tuple(one.record for one in each) for each in statements))
            if state == before:
                raise
            if state[0] != held.digest:
                raise _TagMovedError from None
            before = state
        else:
            memory.see(repository.url, tag, standing.number)
            return standing
    raise _TagMovedError


def _moving(repository: Repository, tag: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "tag-moving",
        f"tag '{tag}' was moved again and again while it was verified",
        place=f"{repository.url}:{tag}",
        hint="verify it again when nobody publishes to it",
    )


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
