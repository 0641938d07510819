"""Tags that are moved to what a mirror holds already: promoted to a channel, or rolled back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.gather import Workshop
from pipeline.mirror.addresses import Address
from pipeline.mirror.gate import Cleared
from pipeline.mirror.history import earlier, read_history
from pipeline.mirror.publishing import Mover
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity
from pipeline.model.publication import Move, Why
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.release.current import current_images, refuse_name, way_of
from pipeline.release.verify import clear_held, verified


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a tag: `moved` is None if it pointed there already."""

    repository: str
    tag: str
    digest: Digest
    version: str
    moved: Move | None


def promote(
    reference: Address,
    channel: str,
    key: VerifyingKey,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> Moved:
    """Point `channel` at the very digest that `reference` names, verified first to its last byte, and cleared by that
    channel's rules. Nothing is uploaded but the record of the move."""
    with way_of(workshop).repository(reference, write=True) as repository:
        refuse_name(channel)
        expected = identity.of(repository)
        held = verified(repository, reference.reference, key, workshop, contents=True, expected=expected).held

        def clear() -> Cleared:
            current = current_images(repository, (channel,), held.digest)
            return replace(clear_held(held, (channel,), repository, key, rules), current=current)

        return _moved(Mover(repository, held.version, Why.PROMOTE, clear, workshop.clock), channel, clear())


def rollback(
    reference: Address,
    to: Digest | None,
    key: VerifyingKey,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> Moved:
    """Point a tag at what it pointed to before, or at `to`, verified first to its last byte. Nothing is uploaded but
    the record of the move. Raises UsageError `history-empty`, `not-in-history`."""
    tag = reference.tag or "latest"
    refuse_name(tag)
    with way_of(workshop).repository(reference, write=True) as repository:
        before = earlier(read_history(repository, tag))
        if to is None and not before:
            raise UsageError(
                "history-empty",
                f"'{tag}' has pointed to nothing else before",
                place=repository.url,
                hint="name a digest with --to; `relbuild history` shows what there is",
            )
        target = to or before[0]
        expected = identity.of(repository)
        held = verified(repository, target, key, workshop, contents=True, expected=expected).held

        def clear() -> Cleared:
            return clear_held(held, (tag,), repository, key, rules)

        return _moved(Mover(repository, held.version, Why.ROLLBACK, clear, workshop.clock), tag, clear())


def _moved(mover: Mover, tag: str, cleared: Cleared) -> Moved:
    moves, _ = mover.move((tag,), cleared)
    return Moved(mover.repository.url, tag, cleared.digest, mover.version, moves[0] if moves else None)
