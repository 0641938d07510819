"""Read the history of a tag from its mirror: signed moves, and unsigned old records.

Each move is signed before it is made (`pipeline.mirror.tag_signing`). There is no other database, and clocks do not
decide the order: each move names its predecessor.

Mirrors that are older than signed moves have unsigned records, small manifests under tags that begin with `move.`. They
are read as the moves before the signed ones; none is written any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_claims import claimed_moves
from pipeline.mirror.tag_statements import MOVE_ANNOTATION_PREFIX, list_statements, signed_statements
from pipeline.model.manifests import Manifest
from pipeline.model.publication import (
    Move,
    MoveCause,
    PastMove,
    RecordedStatement,
)
from pipeline.model.tag_chain import chain, head, newest_first
from pipeline.oci import VerifyingKey
from pipeline.oci.image_manifest import JsonReader

MOVE_TYPE = "application/vnd.relbuild.move.v1+json"
"""The artifactType of an old record."""

_RECORD = re.compile(r"move\.(?P<tag>.+)\.(?P<at>\d{8}T\d{9}Z)\.[0-9a-f]{6}")
_LONGEST_NAME = 90
"""Characters of a tag's name in the name of an old record: time and number take the rest of the 128."""


def read_history(
    repository: Repository,
    tag: str,
    names: Sequence[str] = (),
    key: VerifyingKey | None = None,
    *,
    claimed: bool = False,
) -> tuple[PastMove, ...]:
    """Return all moves of a tag, oldest first.

    Statements are read under the first of `names` that has any (default: the repository's own name), only those signed
    by `key`, or without a key all, unverified. `claimed`: also moves by other keys that lead to the signed ones,
    unverified (`claimed_moves`): for people to read, and for no decision. Raises VerificationError `move-malformed`.
    """
    now = repository.resolve(tag)
    signed: tuple[RecordedStatement, ...] = ()
    others: Mapping[Digest, Digest] = {}
    for name in names or (repository.identity,):
        listed = list_statements(repository, name, tag)
        signed = listed if key is None else signed_statements(repository, name, tag, key, listed=listed)
        if signed:
            break
    last = head(signed, now)
    if claimed and key is not None and signed:
        others = claimed_moves(repository, listed, signed, last, key)
        signed = newest_first((*signed, *(one for one in listed if one.record in others)))
    made = chain(signed, last)
    stands = made[0].statement.move.before if made else now
    return (*_old(repository, tag, stands), *_signed(signed, made, others))


def _signed(
    statements: Iterable[RecordedStatement], made: Sequence[RecordedStatement], others: Mapping[Digest, Digest]
) -> Iterable[PastMove]:
    happened = {one.record for one in made}
    moves = (one for one in statements if not one.statement.renews)
    for one in sorted(moves, key=lambda one: (one.statement.number, one.record)):
        said = one.statement
        yield PastMove(said.move, str(one.record), one.record in happened, said.number, others.get(one.record))


def earlier_digests(past: Sequence[PastMove]) -> tuple[Digest, ...]:
    """Return the former targets of a tag, the most recent first.

    Without those from which it was rolled back: the first is the target of the next rollback, and so on.
    """
    stack: list[Digest] = []
    for one in past:
        if not one.happened:
            continue
        move = one.move
        if move.before is not None and (not stack or stack[-1] != move.before):
            stack.append(move.before)
        if move.why is MoveCause.ROLLBACK and move.after in stack:
            while stack[-1] != move.after:
                stack.pop()
        elif move.why is MoveCause.ROLLBACK:
            stack = [move.after]  # What was before that is not known, and what it left is not earlier.
        elif not stack or stack[-1] != move.after:
            stack.append(move.after)
    return tuple(reversed(stack[:-1]))


def withdrawn_digests(past: Sequence[PastMove]) -> frozenset[Digest]:
    """Return the former targets from which a person moved a tag back, and nobody to it again.

    A rollback or promotion withdraws the target that the tag had, and those that it had after the one it goes to.
    """
    trail: list[Digest] = []
    withdrawn: set[Digest] = set()
    for move in (one.move for one in past if one.happened):
        if move.before is not None and (not trail or trail[-1] != move.before):
            trail.append(move.before)
        if move.why in (MoveCause.ROLLBACK, MoveCause.PROMOTE) and trail:
            first = len(trail) - 1
            if move.after in trail:
                first = len(trail) - trail[::-1].index(move.after)
            withdrawn.update(trail[first:])
            del trail[first:]
        withdrawn.discard(move.after)
        if not trail or trail[-1] != move.after:
            trail.append(move.after)
    return frozenset(withdrawn)


def is_withdrawn(
    repository: Repository,
    name: str,
    tag: str,
    digest: Digest,
    key: VerifyingKey,
    *,
    listed: tuple[RecordedStatement, ...],
) -> bool:
    """Return whether a person moved a tag back from a digest.

    `name` is the repository's in statements, `key` the one that signed them, `listed` the statements on the tag; most
    often they tell that nobody did, and none is read. Only what `key` signed counts, and no unsigned old record: who
    can write to the mirror could keep a tag where it is, and have nights sign that. Raises as the repository
    does.
    """
    moves = [one.statement.move for one in listed]
    causes = {move.why for move in moves}
    if not causes & {MoveCause.ROLLBACK, MoveCause.PROMOTE} or all(
        digest not in (move.before, move.after) for move in moves
    ):
        return False
    signed = signed_statements(repository, name, tag, key, listed=listed)
    made: tuple[RecordedStatement, ...] = chain(signed, head(signed, repository.resolve(tag)))
    # A move that names none before it may have been signed while a mirror withheld those: they happened all the same.
    while made and (before := [one for one in signed if one.statement.number < made[0].statement.number]):
        earlier = chain(before, head(before, made[0].statement.move.before))
        if not earlier:
            break
        made = (*earlier, *made)
    return digest in withdrawn_digests(tuple(_signed(signed, made, {})))


# --- old records ---------------------------------------------------------------------------------------


def _old(repository: Repository, tag: str, stands: Digest | None) -> tuple[PastMove, ...]:
    found: list[tuple[Move, str]] = []
    for record in move_records(repository.tags(), tag):
        manifest = repository.manifest(record)
        if manifest is None:  # pruned since the tags were listed
            continue
        move = read_move(manifest, record)
        if move.tag == tag:
            found.append((move, record))
    return _told(found, stands)


def move_records(tags: Sequence[str], tag: str | None = None) -> tuple[str, ...]:
    """Return those of `tags` that are old records of moves (of `tag`, if given)."""
    names = []
    for name in tags:
        parsed = _RECORD.fullmatch(name)
        if parsed and (tag is None or parsed["tag"] == tag[:_LONGEST_NAME]):
            names.append(name)
    return tuple(names)


def _told(found: Sequence[tuple[Move, str]], stands: Digest | None) -> tuple[PastMove, ...]:
    """Order old recorded moves, and mark those that were made: the chain that ends at `stands`.

    From the end: the target `stands` was set by the last move to it, whose `before` is the target before that. Where
    several moves match, the latest is taken, by clocks that may have been wrong.
    """
    left = sorted(found, key=lambda one: (one[0].at, one[1]))
    made: list[tuple[Move, str]] = []
    while stands is not None:
        last = next((one for one in reversed(left) if one[0].after == stands), None)
        if last is None:
            break
        left.remove(last)
        made.append(last)
        stands = last[0].before
    told = [PastMove(move, record, True) for move, record in reversed(made)]
    for move, record in reversed(left):  # the others stand before the first that was made after them
        at = next((number for number, past in enumerate(told) if past.happened and past.move.at > move.at), len(told))
        told.insert(at, PastMove(move, record, False))
    return tuple(told)


def read_move(manifest: Manifest, record: str) -> Move:
    """Parse an old record's manifest. Raises VerificationError `move-malformed`."""
    place = f"record {record}"
    notes = JsonReader.parse(manifest.data, place).get("annotations")
    before = notes.get(f"{MOVE_ANNOTATION_PREFIX}from").text("")
    # Thirteen digits of milliseconds reach to the year 2286: anybody who can write to the mirror can write a record.
    at, why = notes.get(f"{MOVE_ANNOTATION_PREFIX}at").text(), notes.get(f"{MOVE_ANNOTATION_PREFIX}why").text()
    if not re.fullmatch(r"\d{1,13}", at) or why not in set(MoveCause):
        raise VerificationError(
            "move-malformed", f"{place} is not a record of a move: {at[:40]!r}, {why[:40]!r}", place=place
        )
    return Move(
        tag=notes.get(f"{MOVE_ANNOTATION_PREFIX}tag").text(),
        before=Digest.parse(before) if before else None,
        after=Digest.parse(notes.get(f"{MOVE_ANNOTATION_PREFIX}to").text()),
        at=int(at),
        why=MoveCause(why),
        version=notes.get(f"{MOVE_ANNOTATION_PREFIX}version").text(""),
    )
