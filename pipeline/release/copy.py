"""From one mirror to another, or across an air gap, with everything that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.gather import Workshop
from pipeline.mirror.addresses import Address
from pipeline.mirror.carrying import Carried, carry
from pipeline.mirror.gate import Cleared
from pipeline.mirror.publishing import Mover, set_for_ever
from pipeline.mirror.repository import Repository, is_auxiliary
from pipeline.mirror.signed_identity import EXPECT_OWN, NO_HOST, ExpectedIdentity, SignedIdentity
from pipeline.mirror.tags import immutable_tag
from pipeline.model.publication import Move, Why
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey
from pipeline.release.current import current_images, refuse_name, way_of
from pipeline.release.verify import clear_held, verified


@dataclass(frozen=True, slots=True)
class Copied:
    """What was carried: the reference's digest, its tags there, and how much was sent."""

    digest: Digest
    tags: tuple[str, ...]
    moved: tuple[Move, ...]
    carried: Carried


def copy(
    source: Address,
    target: Address,
    key: VerifyingKey,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
) -> tuple[Copied, ...]:
    """Carry an image, or without tag and digest all that a repository's tags name, to another mirror or into a layout,
    with every signature and referrer; verified first to the last byte. `identity` is the source's; what is in a layout,
    which has no name, must have been signed under a name whose last part is the target's.

    Raises UsageError, VerificationError, PublicationRefused.
    """
    reach = way_of(workshop)
    with reach.repository(source) as here, reach.repository(target, create=True, write=True) as there:
        porter = _Porter(here, there, key, rules, workshop, _expected(here, there, identity))
        return tuple(porter.carry(digest, tags) for digest, tags in _wanted(here, source, target))


def _wanted(here: Repository, source: Address, target: Address) -> list[tuple[Digest, tuple[str, ...]]]:
    """What is to be carried, with the tags that it is to have there."""
    if target.tag:
        refuse_name(target.tag)
    if source.digest is not None:
        return [(source.digest, (target.tag,) if target.tag else ())]
    by_digest: dict[Digest, list[str]] = {}
    for tag in (source.tag,) if source.tag else [tag for tag in here.tags() if not is_auxiliary(tag)]:
        digest = here.resolve(tag)
        if digest is None:
            raise UsageError(
                "reference-missing",
                f"{here.url} has no tag '{tag}'",
                place=here.url,
                hint="name another; without a tag, all are copied",
            )
        by_digest.setdefault(digest, []).append(target.tag or tag)
    return [(digest, tuple(tags)) for digest, tags in sorted(by_digest.items())]


def _expected(here: Repository, there: Repository, identity: ExpectedIdentity) -> SignedIdentity | None:
    expected = identity.of(here)
    if expected is None and there.name:
        return SignedIdentity(f"{NO_HOST}/{there.name.rpartition('/')[2]}")
    return expected


@dataclass(frozen=True, slots=True)
class _Porter:
    here: Repository
    there: Repository
    key: VerifyingKey
    rules: MirrorRules
    workshop: Workshop
    expected: SignedIdentity | None

    def carry(self, digest: Digest, tags: tuple[str, ...]) -> Copied:
        """One image or index: verified, carried, and what arrived cleared before a tag points to it."""
        work = self.workshop
        held = verified(self.here, digest, self.key, work, contents=True, expected=self.expected).held
        carried = carry(held, self.here, self.there, store=work.store, progress=work.progress)
        own = immutable_tag(held.version, held.created, held.digest)
        floating = tuple(tag for tag in tags if tag != own)

        def clear() -> Cleared:
            current = current_images(self.there, floating, held.digest)
            return replace(clear_held(held, (*floating, own), self.there, self.key, self.rules), current=current)

        cleared = clear()
        set_for_ever(self.there, own, cleared)
        moves, _ = Mover(self.there, held.version, Why.COPY, clear, work.clock).move(floating, cleared)
        return Copied(held.digest, (own, *floating), moves, carried)
