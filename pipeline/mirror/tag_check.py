"""Verify a tag's target against the newest signed statements on it, read from its mirror.

Whoever can write to a mirror can point a tag at an older image of the same product, or withhold a move; the signed
statements say where it must point.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_claims import claiming_key
from pipeline.mirror.tag_statements import find_statement, recent_statements, signed_statements
from pipeline.model.publication import RecordedStatement, TagStatement
from pipeline.model.quantities import LONGEST_VALIDITY
from pipeline.model.tag_chain import believable
from pipeline.oci import VerifyingKey

CLOCKS_DIFFER = 86_400_000
"""Milliseconds by which a publisher's clock may be ahead of a verifier's."""


@dataclass(frozen=True, slots=True)
class TagStanding:
    """A tag that points where its newest signed statement says.

    `identity`: the repository's name in the statement; `number` and `until` (milliseconds since the epoch) are the
    statement's, and `key` is the fingerprint of the one that signed it; `stale`: it has expired, which was allowed.
    """

    tag: str
    identity: str
    number: int
    until: int
    key: Digest
    stale: bool = False


def check_tag(
    repository: Repository,
    tag: str,
    digest: Digest,
    key: VerifyingKey,
    names: Sequence[str],
    *,
    now: int,
    seen: int = 0,
    allow_stale: bool = False,
) -> TagStanding:
    """Compare a tag's target `digest` with the statements on the tag that `key` signed.

    Statements are read under the first of `names` that has any. `now`: milliseconds since the epoch; `seen`: the
    highest statement number that was seen before.

    Raises VerificationError: `tag-unsigned` (there are no statements), `moves-rolled-back` (the newest number is lower
    than `seen`), `tag-replayed` (the tag was moved away from `digest`), `tag-unsigned-move` (no statement has
    `digest`), `tag-other-key` (in place of the first two and the fourth, where another key's statement says it),
    `tag-frozen` (the newest statement has expired, or claims to be valid for longer than any, unless `allow_stale`).
    """
    place = f"{repository.url}:{tag}"
    signed = ((name, recent_statements(repository, name, tag, key)) for name in dict.fromkeys(names))
    identity, recent = next(((name, found) for name, found in signed if found), ("", ()))
    if not recent:
        raise _unsigned(repository, tag, key, names, place)
    believed, newest = believable(recent, lambda record: find_statement(repository, identity, tag, record, key))
    said = newest[0].statement
    if said.number < seen:
        raise _rolled_back(repository, said, seen, key, place)
    if digest not in believed:
        raise _elsewhere(repository, said, digest, believed, key)
    ahead = said.until > now + LONGEST_VALIDITY * 1000 + CLOCKS_DIFFER
    if ahead and not allow_stale:
        raise VerificationError(
            "tag-frozen",
            f"the signed move of tag '{tag}' would be valid until {_day(said.until)}, which is longer than any: "
            f"the publisher's clock was ahead, or this one ({_day(now)}) is behind",
            place=place,
            hint="correct this machine's clock, if it is wrong; else the next nightly run or publication signs it "
            "anew; --allow-stale accepts it as it is",
        )
    stale = said.until < now or ahead
    if stale and not allow_stale:
        raise VerificationError(
            "tag-frozen",
            f"the signed move of tag '{tag}' expired on {_day(said.until)}",
            place=place,
            hint="the next nightly run renews it, or `relbuild promote` of the same image to it; --allow-stale "
            "accepts it as it is",
        )
    return TagStanding(tag, identity, said.number, said.until, _signer(repository, newest[0], key), stale)


def _signer(repository: Repository, newest: RecordedStatement, key: VerifyingKey) -> Digest:
    """Return the fingerprint of the key that signed a statement, of those that `key` has."""
    said = newest.statement
    for each in key.each[:-1]:
        if find_statement(repository, said.repository, said.move.tag, newest.record, each) is not None:
            return each.fingerprint
    return key.each[-1].fingerprint


def _unsigned(
    repository: Repository, tag: str, key: VerifyingKey, names: Sequence[str], place: str
) -> VerificationError:
    others = (claiming_key(repository, name, tag, key) for name in dict.fromkeys(names))
    other = next((found for found in others if found is not None), None)
    if other is not None:
        return _by_another_key(f"tag '{tag}' has no move that the key {key.fingerprint.short} signed", other, place)
    return VerificationError(
        "tag-unsigned",
        f"tag '{tag}' has no signed move",
        place=place,
        hint="the publisher must sign it: `relbuild promote` of the digest or the immutable tag to it, or the next "
        "publication; for another identity: --as",
    )


def _rolled_back(
    repository: Repository, said: TagStatement, seen: int, key: VerifyingKey, place: str
) -> VerificationError:
    """Make the error of a tag whose newest statement has a lower number than was seen before."""
    tag = said.move.tag
    other = claiming_key(repository, said.repository, tag, key, lambda one: one.number >= seen)
    if other is not None:
        own = f"the newest move by the key {key.fingerprint.short} is number {said.number}"
        return _by_another_key(
            f"tag '{tag}' has a newer signed move, number {seen} was seen before; {own}", other, place
        )
    return VerificationError(
        "moves-rolled-back",
        f"rollback: the newest move of tag '{tag}' is number {said.number}, but number {seen} was seen before",
        place=place,
        hint="the mirror shows an older state; if it was restored from a backup, the next publication "
        "or promotion signs a higher number (with --former-key where the key was changed since)",
    )


def _by_another_key(message: str, other: Digest, place: str) -> VerificationError:
    """Make the error of a tag that only a statement by another key explains."""
    return VerificationError(
        "tag-other-key",
        f"{message}; there is a move that names another key, {other.short} (not verified)",
        place=place,
        hint="if the publisher changed the key, verify with the new public key, got from the publisher and not from "
        "this mirror, and have the tag signed with it: see 'Changing the key' in docs/mirrors.md; else somebody else "
        "writes to this mirror",
    )


def _elsewhere(
    repository: Repository, said: TagStatement, digest: Digest, believed: Collection[Digest], key: VerifyingKey
) -> VerificationError:
    """Make the error of a tag that points to `digest`, not where `said` allows."""
    right = ", ".join(sorted(map(str, believed)))
    tag = said.move.tag
    place = f"{repository.url}:{tag}"
    if any(one.statement.move.after == digest for one in signed_statements(repository, said.repository, tag, key)):
        return VerificationError(
            "tag-replayed",
            f"the tag points to {digest}, but its newest signed move is to {right}",
            place=place,
            hint="it was set back without a signed move; fix it with `relbuild promote` of the right image",
        )

    def newer(one: TagStatement) -> bool:
        return one.number > said.number and one.move.after == digest

    other = claiming_key(repository, said.repository, tag, key, newer)
    if other is not None:
        message = f"the tag points to {digest}; the key {key.fingerprint.short} signed a move to {right}"
        return _by_another_key(message, other, place)
    return VerificationError(
        "tag-unsigned-move",
        f"the tag points to {digest}, which no move signs; the signed target is {right}",
        place=place,
        hint="it was moved without relbuild; fix it with `relbuild promote` of the right image",
    )


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
