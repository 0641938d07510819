"""Tags that are moved to what a mirror holds already: promoted to a channel, or rolled back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.gather import Workshop
from pipeline.mirror.address import Address
from pipeline.mirror.gate import Cleared
from pipeline.mirror.history import earlier, read_history
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, known_names
from pipeline.mirror.tag_moves import TagMover
from pipeline.model.publication import Move, Why
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey
from pipeline.release.current import current_images, mirror_access, refuse_name, signer_of
from pipeline.release.verify import clear_held, verified


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of moving a tag: `moved` is None if it pointed there already."""

    repository: str
    tag: str
    digest: Digest
    version: str
    moved: Move | None


def promote(
    reference: Address,
    channel: str,
    key: SigningKey,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
) -> Moved:
    """Point `channel` at the very digest that `reference` names.

    The digest is verified first, and cleared by that channel's rules. Nothing is uploaded but the signed move. Raises
    as `verify`, PublicationRefused.
    """
    with mirror_access(workshop).repository(reference, write=True) as repository:
        refuse_name(channel)
        expected, public = identity.of(repository), key.public
        held = verified(
            repository,
            reference.reference,
            public,
            workshop,
            contents=True,
            expected=expected,
            allow_stale=allow_stale,
        ).held

        def clear() -> Cleared:
            current = current_images(repository, (channel,), held.digest)
            return replace(clear_held(held, (channel,), repository, public, rules), current=current)

        signer = signer_of(key, rules, workshop)
        name = expected.name if expected else ""
        mover = TagMover(repository, held.version, Why.PROMOTE, clear, workshop.clock, signer, name)
        return _moved(mover, channel, clear())


def rollback(
    reference: Address,
    to: Digest | None,
    key: SigningKey,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> Moved:
    """Point a tag at what it pointed to before, or at `to`, verified first to its last byte.

    Nothing is uploaded but the signed move. Where the tag points now is not asked: rolling back is what mends it.

    Raises UsageError `history-empty`, as `verify`, PublicationRefused.
    """
    tag = reference.tag or "latest"
    refuse_name(tag)
    with mirror_access(workshop).repository(reference, write=True) as repository:
        expected, public = identity.of(repository), key.public
        before = earlier(read_history(repository, tag, known_names(repository, expected), public))
        if to is None and not before:
            raise UsageError(
                "history-empty",
                f"tag '{tag}' has no earlier image",
                place=repository.url,
                hint="choose a digest with --to; `relbuild history` lists them",
            )
        target = to or before[0]
        held = verified(repository, target, public, workshop, contents=True, expected=expected).held

        def clear() -> Cleared:
            return clear_held(held, (tag,), repository, public, rules)

        signer = signer_of(key, rules, workshop)
        name = expected.name if expected else ""
        mover = TagMover(repository, held.version, Why.ROLLBACK, clear, workshop.clock, signer, name)
        return _moved(mover, tag, clear())


def _moved(mover: TagMover, tag: str, cleared: Cleared) -> Moved:
    moves, _ = mover.move((tag,), cleared)
    return Moved(mover.repository.url, tag, cleared.digest, mover.version, moves[0] if moves else None)
