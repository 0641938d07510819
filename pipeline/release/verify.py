"""What a mirror holds, verified to the last byte and cleared by what is attested there."""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, VerificationError
from pipeline.gather import Workshop
from pipeline.mirror.addresses import Address
from pipeline.mirror.gate import Attested, Candidate, Cleared
from pipeline.mirror.held import Held
from pipeline.mirror.repository import Repository
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, SignedIdentity
from pipeline.mirror.verifying import Verified
from pipeline.mirror.verifying import verify as verify_held
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.release.current import way_of


def verify(
    reference: Address,
    key: VerifyingKey,
    workshop: Workshop,
    *,
    contents: bool = True,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> Verified:
    """Verify what a reference names: every byte (without `contents`, of layers only that they are there), signatures
    and the name in them, attestations, and the recorded answers once more. Raises UsageError `reference-missing`,
    VerificationError."""
    with way_of(workshop).repository(reference) as repository:
        try:
            expected = identity.of(repository)
            return verified(repository, reference.reference, key, workshop, contents=contents, expected=expected)
        except PublicationRefused as refused:  # nobody wants to publish here: what stands there does not hold
            raise VerificationError.of(refused.problems) from refused


def verified(
    repository: Repository,
    reference: Digest | str,
    key: VerifyingKey,
    workshop: Workshop,
    *,
    contents: bool,
    expected: SignedIdentity | None,
) -> Verified:
    """The same, of a repository that is open, by one who wants to move a tag to it: PublicationRefused is raised if the
    recorded answers do not carry that."""
    return verify_held(
        repository,
        reference,
        key,
        expected,
        judge=lambda held: clear_held(held, (), repository, key, MirrorRules()),
        progress=workshop.progress,
        contents=contents,
    )


def clear_held(
    held: Held, tags: tuple[str, ...], repository: Repository, key: VerifyingKey, rules: MirrorRules
) -> Cleared:
    """What a mirror holds, cleared by the evidence that `key` attests there. Going back is what a person wants who
    names an older image, so what `tags` point to now is not asked about."""
    warrants = [Attested(image.digest, repository, key) for image in held.images]
    candidates = tuple(
        Candidate(image.manifest_bytes, image.config_bytes, warrant.evidence, warrant)
        for image, warrant in zip(held.images, warrants, strict=True)
    )
    # The keeper's rules are on repositories; a layout has no name, and there the product's is taken.
    return Cleared(repository.name or held.images[0].name, tags, held.manifest, candidates, rules)
