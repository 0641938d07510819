"""Laws of the chain of moves, for publishers that are killed at any step, that come between one another, and whose
clocks are wrong."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.model.publication import (
    Move,
    MoveCause,
    RecordedStatement,
    TagStatement,
)
from pipeline.model.tag_chain import AT_ONCE, NEAR, begins_where, believable, chain, head, newest_first
from tests.support.examples import examples

IMAGES = [Digest.of(b"image %d" % number) for number in range(4)]


class Tag:
    """A tag that is compared and swapped, and what is signed of it; what really happened to it."""

    def __init__(self) -> None:
        self.now: Digest | None = None
        self.statements: list[RecordedStatement] = []
        self.happened: list[Digest] = []
        self.confirmed = True
        """Whether somebody renewed what is signed of it since it was moved last."""
        self.unsettled: dict[int, Digest] = {}

    @property
    def recent(self) -> list[RecordedStatement]:
        ordered = newest_first(self.statements)
        settled = next((one.statement.number for one in ordered if one.statement.renews), 0)
        newest = [one for one in ordered if one.statement.number >= settled]
        return [*newest, *(one for one in ordered if one not in newest and begins_where(one, newest))]

    def sign(self, move: Move, previous: Digest | None) -> None:
        number = max((one.statement.number for one in self.statements), default=0) + 1
        said = TagStatement("host/name", move, number, previous, 0)
        self.statements.append(RecordedStatement(Digest.of(repr((len(self.statements), said)).encode()), said))

    def announce(self, image: Digest, clock: int) -> Move | None:
        if image == self.now:
            return None
        move = Move("latest", self.now, image, clock, MoveCause.PUBLISH)
        self.sign(move, head(self.recent, self.now))
        return move

    def make(self, move: Move) -> bool:
        if self.now != move.before:
            return False
        self.now = move.after
        self.confirmed = False
        self.happened.append(move.after)
        return True

    def settle(self, clock: int) -> None:
        if self.now is None:
            return
        last = head(self.recent, self.now)
        assert last is not None
        self.confirmed = True
        self.sign(Move("latest", None, self.now, clock, MoveCause.RENEW), last)

    def look_up(self, record: Digest) -> RecordedStatement | None:
        return next((one for one in self.statements if one.record == record), None)

    def told(self) -> list[Digest]:
        return [one.statement.move.after for one in chain(self.statements, head(self.statements, self.now))]

    def is_believed(self) -> bool:
        return self.now is None or self.now in believable(self.recent, self.look_up)[0]

    def holds(self) -> None:
        assert self.is_believed()
        assert self.told() == self.happened


def happened_in_order(told: list[Digest], happened: list[Digest]) -> bool:
    """Tell whether `told` is `happened`, perhaps with some of it left out."""
    rest = iter(happened)
    return all(image in rest for image in told)


STEPS = st.lists(
    st.tuples(st.sampled_from(["whole", "announced", "made", "renewed"]), st.sampled_from(IMAGES), st.integers(0, 9)),
    max_size=25,
)


@settings(max_examples=examples(300), deadline=None)
@given(STEPS)
def test_one_publisher_after_the_other_killed_anywhere_leaves_a_tag_that_verifies_and_its_true_history(
    steps: list[tuple[str, Digest, int]],
) -> None:
    tag = Tag()
    for how, image, clock in steps:
        move = tag.announce(image, clock) if how != "renewed" else None
        tag.holds()
        if move is not None and how in ("whole", "made"):
            tag.make(move)
            tag.holds()
        if how in ("whole", "renewed"):
            tag.settle(clock)
            tag.holds()


def chained(*given: tuple[int, str, int | None, int]) -> list[RecordedStatement]:
    """Statements by number, cause, the number of the predecessor, and time."""
    made: dict[int, RecordedStatement] = {}
    for number, why, previous, at in given:
        move = Move("latest", None, Digest.of(b"%d" % number), at, MoveCause(why))
        said = TagStatement("host/name", move, number, made[previous].record if previous else None, 0)
        made[number] = RecordedStatement(Digest.of(b"record %d" % number), said)
    return list(newest_first(made.values()))


def believed(*given: tuple[int, str, int | None, int]) -> set[int]:
    """Return the numbers of those whose targets are believed."""
    statements = chained(*given)
    found, _ = believable(statements, lambda record: next((one for one in statements if one.record == record), None))
    return {one.statement.number for one in statements if one.statement.move.after in found}


def test_only_what_may_have_been_signed_at_once_counts_beside_the_newest_statement() -> None:
    last = 1 + NEAR
    assert believed((1, "publish", None, 0), (last, "publish", 1, 0)) == {1, last}
    assert believed((1, "publish", None, 0), (last + 1, "publish", 1, 0)) == {last + 1}
    assert believed((1, "publish", None, 0), (2, "publish", 1, 0), (2 + NEAR, "renew", 1, 0)) == {2, 2 + NEAR}
    assert believed((1, "publish", None, 0), (2, "publish", 1, 0), (3 + NEAR, "renew", 1, 0)) == {3 + NEAR}


def test_of_two_moves_that_begin_at_one_place_both_count_only_if_they_were_signed_at_once() -> None:
    for why in ("publish", "renew"):
        assert believed((1, "publish", None, 0), (2, "publish", 1, 0), (3, why, 1, AT_ONCE)) >= {2, 3}
        assert 2 not in believed((1, "publish", None, 0), (2, "publish", 1, 0), (3, why, 1, AT_ONCE + 1))
        assert 2 not in believed((1, "publish", None, 0), (2, "publish", 1, AT_ONCE + 1), (3, why, 1, 0))


def test_where_a_renewal_found_the_tag_counts_however_old_it_is_but_for_another_renewal() -> None:
    assert believed((1, "publish", None, 0), (2, "renew", 1, 0), (3, "publish", 1, 10**9)) == {1, 2, 3}
    assert believed((1, "publish", None, 0), (2, "renew", 1, 0), (3, "renew", 1, 0)) == {3}


TURNS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["announce", "make", "settle", "killed"]), st.sampled_from(IMAGES)),
    max_size=40,
)
"""Who has a turn, whether he is killed then, and what he publishes if he begins."""


def publish_by_turns(turns: list[tuple[int, str, Digest]], *, locked: bool) -> Iterator[Tag]:
    """Three at once, of whom each does his next step whenever he has his turn.

    `locked`: as in a directory, nobody comes between one's look and one's move. Yields the tag after each turn.
    """
    tag = Tag()
    hands: dict[int, Move] = {}
    made: set[int] = set()
    for who, step, image in turns:
        if step == "killed":
            hands.pop(who, None)
            made.discard(who)
        elif who not in hands:
            move = tag.announce(image, who)
            if move is not None:
                hands[who] = move
                if locked and tag.make(move):
                    made.add(who)
        elif who not in made:
            if tag.make(hands[who]):
                made.add(who)
            else:
                del hands[who]
        else:
            if tag.now == hands[who].after:
                tag.settle(who)
            del hands[who]
            made.discard(who)
        yield tag


@settings(max_examples=examples(300), deadline=None)
@given(TURNS)
def test_publishers_who_look_and_move_under_a_lock_leave_the_true_history(
    turns: list[tuple[int, str, Digest]],
) -> None:
    for tag in publish_by_turns(turns, locked=True):
        tag.holds()


@settings(max_examples=examples(300), deadline=None)
@given(TURNS)
def test_publishers_who_come_between_one_another_never_both_count_and_nothing_is_invented(
    turns: list[tuple[int, str, Digest]],
) -> None:
    """On a registry, which has no lock; whoever moved last makes it believable, at the latest (docs/decisions/0018)."""
    for tag in publish_by_turns(turns, locked=False):
        records = [one.record for one in chain(tag.statements, head(tag.statements, tag.now))]
        assert len(records) == len(set(records))
        assert happened_in_order(tag.told(), tag.happened)
        assert tag.is_believed() or not tag.confirmed


@given(STEPS, st.randoms())
def test_the_order_in_which_statements_are_listed_decides_nothing(
    steps: list[tuple[str, Digest, int]], dice: object
) -> None:
    tag = Tag()
    for _, image, clock in steps:
        move = tag.announce(image, clock)
        if move is not None:
            tag.make(move)
    shuffled = list(tag.statements)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert head(shuffled, tag.now) == head(tag.statements, tag.now)
    assert chain(shuffled, head(shuffled, tag.now)) == chain(tag.statements, head(tag.statements, tag.now))
