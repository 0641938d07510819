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
from pipeline.mirror.tag_statements import find_statement, recent_statements, signed_statements
from pipeline.model.publication import RecordedStatement
from pipeline.model.tag_chain import believable
from pipeline.oci import VerifyingKey


@dataclass(frozen=True, slots=True)
class TagStanding:
    """A tag that points where its newest signed statement says.

    `identity`: the repository's name in the statement; `number` and `until` (milliseconds since the epoch) are the
    statement's; `stale`: it has expired, which was allowed.
    """

    tag: str
    identity: str
    number: int
    until: int
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
    `digest`), `tag-frozen` (the newest statement has expired, unless `allow_stale`).
    """
    place = f"{repository.url}:{tag}"
    signed = ((name, recent_statements(repository, name, tag, key)) for name in dict.fromkeys(names))
    identity, recent = next(((name, found) for name, found in signed if found), ("", ()))
    if not recent:
        raise VerificationError(
            "tag-unsigned",
            f"tag '{tag}' has no signed move",
            place=place,
            hint="the publisher must sign it: `relbuild promote` of the digest or the immutable tag to it, or the next "
            "publication; for another identity: --as",
        )

    believed, newest = believable(recent, lambda record: find_statement(repository, identity, tag, record, key))
    said = newest[0].statement
    if said.number < seen:
        raise VerificationError(
            "moves-rolled-back",
            f"rollback: the newest move of tag '{tag}' is number {said.number}, but number {seen} was seen before",
            place=place,
            hint="the mirror shows an older state; if it was restored from a backup, the next publication "
            "or promotion signs a higher number",
        )
    if digest not in believed:
        raise _elsewhere(signed_statements(repository, identity, tag, key), digest, believed, place)
    stale = said.until < now
    if stale and not allow_stale:
        raise VerificationError(
            "tag-frozen",
            f"the signed move of tag '{tag}' expired on {_day(said.until)}",
            place=place,
            hint="the next nightly run renews it, or `relbuild promote` of the same image to it; --allow-stale "
            "accepts it as it is",
        )
    return TagStanding(tag, identity, said.number, said.until, stale)


def _elsewhere(
    signed: Sequence[RecordedStatement], digest: Digest, believed: Collection[Digest], place: str
) -> VerificationError:
    right = ", ".join(sorted(map(str, believed)))
    if any(one.statement.move.after == digest for one in signed):
        return VerificationError(
            "tag-replayed",
            f"the tag points to {digest}, but its newest signed move is to {right}",
            place=place,
            hint="it was set back without a signed move; fix it with `relbuild promote` of the right image",
        )
    return VerificationError(
        "tag-unsigned-move",
        f"the tag points to {digest}, which no move signs; the signed target is {right}",
        place=place,
        hint="it was moved without relbuild; fix it with `relbuild promote` of the right image",
    )


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
