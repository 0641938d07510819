"""The history of a tag: where it pointed and when, with what changed each time."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.gather import Workshop
from pipeline.mirror.address import Address
from pipeline.mirror.differences import Difference, Known, difference, read_known
from pipeline.mirror.history import read_history
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, known_names
from pipeline.model.publication import Past
from pipeline.oci import VerifyingKey
from pipeline.release.current import mirror_access


@dataclass(frozen=True, slots=True)
class Step:
    """A move of a tag, and what changed with it.

    `changes` is None where either image is not there any more, or has no SBOM.
    """

    past: Past
    changes: Difference | None


def history(
    reference: Address,
    workshop: Workshop,
    key: VerifyingKey | None = None,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> tuple[Step, ...]:
    """Return all moves of a tag, oldest first, with what changed between neighbours.

    They are those that `key` signed, or without one what the mirror says.
    """
    with mirror_access(workshop).repository(reference) as repository:
        known: dict[Digest, Known | None] = {}

        def look(digest: Digest | None) -> Known | None:
            if digest is not None and digest not in known:
                known[digest] = read_known(repository, digest)
            return known[digest] if digest is not None else None

        steps = []
        names = known_names(repository, identity.of(repository))
        for past in read_history(repository, reference.tag or "latest", names, key):
            before, after = look(past.move.before), look(past.move.after)
            changes = difference(before, after) if before is not None and after is not None else None
            steps.append(Step(past, changes))
        return tuple(steps)
