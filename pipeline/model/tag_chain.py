"""Evaluation of a tag's signed statements: the last move, its chain, believable digests.

Pure: it depends neither on the present time nor on the order of the statements.

Moves are a chain: each names the one that was made before it. A renewal names the move that it renews, and is written
when the tag was seen to point there, so it confirms that this move was made. A move that is newer than the newest
renewal is under way, or its maker was killed or overtaken: it was made if the tag points where it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.digest import Digest
from pipeline.model.publication import RecordedStatement, TagStatement

AT_ONCE = 3_600_000
"""Milliseconds for which the publisher of a statement may still be working on its move."""

NEAR = 64
"""Greatest difference between the numbers of statements that publishers may have signed at once, or one after the
other with none confirmed. One that sees that a mirror withholds statements goes further, so that none before counts."""


def newest_first(statements: Iterable[RecordedStatement]) -> tuple[RecordedStatement, ...]:
    """Sort statements by number, the newest first, and those of one number by digest.

    The order does not depend on the reader.
    """
    return tuple(sorted(statements, key=lambda one: (-one.statement.number, one.record)))


def head(statements: Iterable[RecordedStatement], now: Digest | None) -> Digest | None:
    """Return the record of the move that was made last.

    The tag points to `now` (None: it does not exist).
    """
    ordered = newest_first(statements)
    settled = _settled(ordered)
    begun = _begun(ordered, settled)
    made = next((one for one in begun if one.statement.move.after == now), None)
    if made is not None or settled is not None:
        return made.record if made is not None else settled
    # The tag points to no move's digest. If it did not exist before the first move, that one was made.
    first = begun[-1] if begun else None
    return first.record if first is not None and now is not None and first.statement.move.before is None else None


def _settled(ordered: Sequence[RecordedStatement]) -> Digest | None:
    """Return the move that the newest renewal renews; of two with one number, the later move."""
    renewals = [one.statement for one in ordered if one.statement.renews]
    numbers = {one.record: one.statement.number for one in ordered}
    newest = [one.previous for one in renewals if one.number == renewals[0].number and one.previous is not None]
    return max(newest, key=lambda record: (numbers.get(record, 0), record), default=None)


def _begun(ordered: Sequence[RecordedStatement], settled: Digest | None) -> tuple[RecordedStatement, ...]:
    """Return the moves that follow a settled one, newest first.

    `settled` None: the moves without a known predecessor, and those that follow them. Also a later one that names none:
    its publisher saw that the mirror withholds what was before.
    """
    moves = [one for one in ordered if not one.statement.renews]
    known = {one.record for one in moves}
    last = next((one.statement.number for one in ordered if one.statement.renews), 0)
    after = set() if settled is None else {settled}
    begun = []
    for one in reversed(moves):  # a predecessor has a lower number
        previous = one.statement.previous
        root = previous is None and one.statement.number > last
        root = root or (settled is None and (previous is None or previous not in known))
        if root or previous in after:
            after.add(one.record)
            begun.append(one)
    return newest_first(begun)


def chain(statements: Iterable[RecordedStatement], last: Digest | None) -> tuple[RecordedStatement, ...]:
    """Return the moves that were made, oldest first.

    They are found from the record `last` by predecessors, as far as these are among the statements. Each must have a
    lower number than its successor, so that the search ends.
    """
    moves = {one.record: one for one in statements if not one.statement.renews}
    found: list[RecordedStatement] = []
    one = moves.get(last) if last is not None else None
    while one is not None:
        found.append(one)
        previous = one.statement.previous
        before = moves.get(previous) if previous is not None else None
        one = before if before is not None and before.statement.number < one.statement.number else None
    return tuple(reversed(found))


def believable(
    recent: Sequence[RecordedStatement], look_up: Callable[[Digest], RecordedStatement | None]
) -> tuple[frozenset[Digest], tuple[RecordedStatement, ...]]:
    """Return the digests that the newest statements allow for a tag, and those statements.

    `recent` begins with the newest statement and extends to the newest renewal. `look_up` returns a record's statement.

    A renewal allows its own digest. A move that is not renewed yet may be under way or killed: then the tag may still
    point where it did before: by its predecessor, or by a renewal of that, whoever signed the predecessor. Both also
    allow the digests of other moves with the same predecessor that were signed `AT_ONCE`: of two publishers either may
    have been first. Only what is `NEAR` counts: who can have a mirror withhold statements while another is signed
    decides which ones that names.
    """
    newest = tuple(one for one in recent if one.statement.number == recent[0].statement.number) if recent else ()
    least = recent[0].statement.number - NEAR if recent else 0
    recent = [one for one in recent if one.statement.number >= least]
    found: set[Digest] = set()
    for one in newest:
        found.add(one.statement.move.after)
        previous = one.statement.previous
        found |= {
            other.statement.move.after
            for other in recent
            if other.statement.previous == previous and _is_beside(other.statement, one.statement)
        }
        before = look_up(previous) if previous is not None and not one.statement.renews else None
        if before is not None and before.statement.number >= least:
            found.add(before.statement.move.after)
    return frozenset(found), newest


def _is_beside(other: TagStatement, newest: TagStatement) -> bool:
    """Return whether a statement with the same predecessor counts beside the newest one.

    A renewal of what the newest move begins at does, however old; a move that was signed at once.
    """
    if other.renews:
        return not newest.renews
    return abs(newest.move.at - other.move.at) <= AT_ONCE


def begins_where(one: RecordedStatement, settled: Iterable[RecordedStatement]) -> bool:
    """Return whether a move's predecessor is a move that one of the renewals `settled` confirms."""
    said = one.statement
    return not said.renews and any(
        other.statement.renews and other.statement.previous == said.previous for other in settled
    )
