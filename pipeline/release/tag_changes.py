"""Read a tag's moves from its mirror, with the difference between the images of each move."""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.image_difference import (
    ImageDifference,
    KnownContents,
    compare_contents,
    read_known_contents,
)
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import missing_reference
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, known_names
from pipeline.mirror.tag_history import read_history
from pipeline.model.publication import PastMove
from pipeline.oci import VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """A move of a tag, and the difference between its images.

    `changes` is None if an image is missing or has no SBOM.
    """

    past: PastMove
    changes: ImageDifference | None


def history(
    reference: Address,
    build_env: BuildEnvironment,
    key: VerifyingKey | None = None,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> tuple[HistoryStep, ...]:
    """Return all moves of a tag, oldest first, each with the difference between its images.

    Only moves that `key` signed, and those by other keys that lead to them, marked as such; without a key all,
    unverified. Raises UsageError `reference-missing` where neither the tag nor a record of it is there.
    """
    tag = reference.tag or "latest"
    with mirror_access(build_env).repository(reference) as repository:
        known: dict[Digest, KnownContents | None] = {}

        def look(digest: Digest | None) -> KnownContents | None:
            if digest is not None and digest not in known:
                known[digest] = read_known_contents(repository, digest)
            return known[digest] if digest is not None else None

        steps = []
        names = known_names(repository, identity.of(repository))
        for past in read_history(repository, tag, names, key, claimed=True):
            before, after = look(past.move.before), look(past.move.after)
            changes = compare_contents(before, after) if before is not None and after is not None else None
            steps.append(HistoryStep(past, changes))
        if not steps and not _is_there(repository, reference) and not read_history(repository, tag, names):
            raise missing_reference(repository, reference.tag or reference.reference)
        return tuple(steps)


def _is_there(repository: Repository, reference: Address) -> bool:
    if reference.digest is not None and not reference.tag:
        return repository.manifest(reference.digest) is not None
    return repository.resolve(reference.tag or "latest") is not None
