"""Verify an image on a mirror and its tag's signed moves; clear it by attested evidence."""

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
from pipeline.mirror.tag_memory import TagMemory
from pipeline.mirror.tag_statements import recent_statements
from pipeline.mirror.verification import Verified
from pipeline.mirror.verification import verify_image as verify_held
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access

VERIFY_ATTEMPTS = 10
"""Attempts to verify a tag that is moved meanwhile."""


class _TagMovedError(Exception):
    """Error: the tag was moved while it was checked."""


def verify_reference(
    reference: Address,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    contents: bool = True,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
) -> Verified:
    """Verify the image or index of a reference.

    That is: all blobs (without `contents`, layers need only exist), signatures and the name in them, attestations, the
    recorded answers of the tests, which are judged again, and for a floating tag, that it points where its newest
    signed move says. Raises UsageError `reference-missing`, VerificationError.
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
        except PublicationRefused as refused:  # nothing is published here: the image does not verify
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
    """Verify a reference in an open repository, as `verify_reference` does.

    Raises PublicationRefused if the evidence does not suffice.
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
    """Check that a tag of the verified image is signed, under one of `names`; record its number.

    Returns None for the immutable tag, whose name has the digest. Raises VerificationError as `check_tag`,
    EnvironmentLacking `tag-moving`.
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
    """Check the tag; an error counts only if the same state was read twice.

    The tag and its statements are read one after the other, and may change between.
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
                seen=memory.seen(repository.url, tag, *(each.fingerprint for each in key.each)),
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
            memory.see(repository.url, tag, standing.key, standing.number)
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
    """Clear an image on a mirror by the evidence that `key` attests there.

    Without `current` images, so that an older image is not refused: the caller adds them.
    """
    warrants = [AttestedEvidence(image.digest, repository, key) for image in held.images]
    candidates = tuple(
        Candidate(image.manifest_bytes, image.config_bytes, warrant.evidence, warrant)
        for image, warrant in zip(held.images, warrants, strict=True)
    )
    # The operator's rules name repositories; a layout has no name, and the product's is used.
    return Cleared(repository.name or held.images[0].name, tags, held.manifest, candidates, rules)
