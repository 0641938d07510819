"""Sign and put statements on one tag: a move before it is made, its confirmation, renewals.

Confirmations and renewals are the same kind of statement, renewed before it expires.

A publisher that is killed between announcement and confirmation leaves a tag that points to its old or new target:
verification accepts both (`pipeline.model.tag_chain.believable`) until the next publication or renewal confirms one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from functools import partial

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_statements import (
    ROOM,
    STATEMENT_NUMBER_LIMIT,
    TagSigner,
    WrittenStatements,
    claimed_signer,
    find_statement,
    list_statements,
    recent_statements,
    tidy_statements,
    write_statement,
)
from pipeline.model.publication import (
    Move,
    MoveCause,
    RecordedStatement,
    TagStatement,
)
from pipeline.model.tag_chain import AT_ONCE, NEAR, believable, head

RENEWAL_SHARE = 0.75
"""Remaining share of its validity below which a statement is renewed: a nightly run that is repeated within the hour
writes nothing, and nightly runs may fail for days before a statement expires."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The outcome of a confirmation.

    `signed`: something was signed; `settled_until`: until when nothing has to be, because that was found (milliseconds
    since the epoch), else 0. `withdrawn`: the tag points where it must not, and nothing was signed.
    """

    signed: bool
    settled_until: int = 0
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class TagReading:
    """Statements on a tag, listed once: all, and of these what `recent_statements` returns."""

    listed: tuple[RecordedStatement, ...]
    recent: tuple[RecordedStatement, ...]

    @property
    def version(self) -> str:
        """The version of the tag's image in the newest statement; "" if there is none."""
        return self.recent[0].statement.move.version if self.recent else ""


@dataclass(frozen=True, slots=True)
class SignedTag:
    """Writer of signed statements on one tag. `identity`: the repository's name in them."""

    repository: Repository
    identity: str
    tag: str
    signer: TagSigner
    _written: WrittenStatements = field(default_factory=WrittenStatements, init=False)
    _seen: int = field(init=False)
    """The highest number that was seen before anything was listed here: what is signed meanwhile is not withheld."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seen", self.signer.seen(self.repository, self.tag))

    def announce(self, move: Move, listed: tuple[RecordedStatement, ...] | None = None) -> None:
        """Sign a move that is about to be made; `move.before` is the tag's present target.

        `listed`: the statements on the tag, where the caller has just listed them, after it resolved the tag.
        """
        listed = self._listed() if listed is None else self._written.among(listed)
        recent = self._recent(listed)
        last = self._predecessor(listed, recent, move.before)
        self._write(move, self._number(listed, recent), last, first=not listed)

    def confirm(
        self,
        digest: Digest,
        version: str,
        why: MoveCause,
        is_withdrawn: Callable[[tuple[RecordedStatement, ...]], bool] = lambda listed: False,
    ) -> Confirmation:
        """Sign that the tag points to `digest`.

        Nothing is signed if that is signed already and not old, or if the tag points elsewhere by now. `why`: cause of
        the move, where no move to `digest` is signed yet. `is_withdrawn` is asked, with the statements that are listed,
        where the newest one that is signed says something else: nothing is signed if it returns True.
        """
        listed = self._listed()  # Before the tag is resolved: a later mover signs a higher number.
        recent = self._recent(listed)
        until = self._settled_until(TagReading(listed, recent), digest)
        if until or self.repository.resolve(self.tag) != digest:
            return Confirmation(False, until)
        elsewhere = not recent or recent[0].statement.move.after != digest
        if elsewhere and is_withdrawn(listed):
            return Confirmation(False, withdrawn=True)
        number = self._number(listed, recent)
        last = self._predecessor(listed, recent, digest)
        # What another key signed until now is no move of this one: the tag is confirmed where it stands, after that.
        told = recent or (listed if last is not None else ())
        if not any(one.statement.move.after == digest for one in told):
            # Nobody announced this one, so what is listed tells where the tag was: not what others say, nor a part.
            before = next((one.statement.move.after for one in recent if one.statement.renews), None)
            if self._is_set_back(recent):
                before = last = None
            move = Move(self.tag, before, digest, self.signer.now, why, version)
            record = self._write(move, number, last, first=not listed).record
            if last is None and not recent:
                return Confirmation(True)
            last, number = record, number + 1
        renewal = self._write(Move(self.tag, None, digest, self.signer.now, MoveCause.RENEW, version), number, last)
        tidy_statements(self.repository, renewal.statement, self.signer.key.public, self.signer.now)
        return Confirmation(True)

    def withdraw(self, digest: Digest | None) -> None:
        """Confirm `digest` again, after the announcement of a move that is not going to be made.

        Only where the newest confirmation is of it, or without any a move, and the tag points there: a newer
        announcement would have the tag taken for one that was set back.
        """
        listed = self._listed()
        recent = self._recent(listed)
        if not recent or recent[0].statement.renews:
            return
        confirmed = next((one for one in recent if one.statement.renews), None)
        made = confirmed or next((one for one in recent if one.statement.move.after == digest), None)
        if made is None or made.statement.move.after != digest or self.repository.resolve(self.tag) != digest:
            return
        move = Move(self.tag, None, digest, self.signer.now, MoveCause.RENEW, made.statement.move.version)
        self._write(move, self._number(listed, recent), made.statement.previous if confirmed else made.record)

    def settled_until(self, digest: Digest) -> int:
        """Return until when `confirm` would sign nothing, as it is signed already and not old.

        Milliseconds since the epoch; 0 if it would.
        """
        return self._settled_until(self.read(), digest)

    def read(self, listed: tuple[RecordedStatement, ...] | None = None) -> TagReading:
        """Read the statements on the tag. `listed`: all, where the caller has just listed them."""
        listed = self._listed() if listed is None else listed
        return TagReading(listed, self._recent(listed))

    def believed_until(self, digest: Digest, reading: TagReading) -> int | None:
        """Return when the newest statement expires that allows `digest` as the tag's target.

        Milliseconds since the epoch; None: no statement allows it, or the mirror was set back.
        """
        believed, newest = believable(reading.recent, partial(self._find, listed=reading.listed))
        if digest not in believed or newest[0].statement.number < self._seen:
            return None
        return newest[0].statement.until

    def is_under_way(self, reading: TagReading) -> bool:
        """Return whether a signed move of the tag may be in progress."""
        recent = reading.recent
        if not recent or recent[0].statement.renews:
            return False
        if len(believable(recent, partial(self._find, listed=reading.listed))[0]) == 1:
            return False
        return 0 <= self.signer.now - recent[0].statement.move.at < AT_ONCE

    def _settled_until(self, reading: TagReading, digest: Digest) -> int:
        recent = reading.recent
        believed, newest = believable(recent, partial(self._find, listed=reading.listed))
        if not newest or not self._own(newest, reading.listed):
            return 0
        # An abandoned move stays acceptable until the next one is confirmed.
        if not all(one.statement.move.after == digest for one in newest):
            return 0
        said = newest[0].statement
        # The first move needs no confirmation. A later one does, also where nothing before it counts.
        if not said.renews and (believed != {digest} or any(one.statement.renews for one in recent)):
            return 0
        due = said.until - math.ceil(RENEWAL_SHARE * self.signer.validity * 1000)
        # One that is valid for longer was signed by a clock that was ahead, or when the rules allowed more.
        longest = self.signer.now + self.signer.validity * 1000 + AT_ONCE
        young = self.signer.now <= due and said.until <= longest
        return due if young and said.number >= self._seen else 0

    def _own(self, statements: tuple[RecordedStatement, ...], listed: tuple[RecordedStatement, ...]) -> bool:
        """Return whether the signer's own key signed them all, and no former one."""
        if not self.signer.former:
            return True
        own = self.signer.key.public
        return all(
            find_statement(self.repository, self.identity, self.tag, one.record, own, listed=listed) is not None
            for one in statements
        )

    def _write(self, move: Move, number: int, previous: Digest | None, *, first: bool = False) -> RecordedStatement:
        until = self.signer.now + self.signer.validity * 1000
        said = TagStatement(self.identity, move, number, previous, until)
        written = write_statement(self.repository, said, self.signer.key, first=first)
        self._written.note(written)
        if self.signer.memory is not None:
            self.signer.memory.see(self.repository.url, self.tag, self.signer.key.public.fingerprint, number)
        return written

    def _predecessor(
        self, listed: tuple[RecordedStatement, ...], recent: tuple[RecordedStatement, ...], target: Digest | None
    ) -> Digest | None:
        """Return the record of the move that was made last, where the tag points to `target`.

        Where no key that is believed ever signed any, that of another key, so that its moves stay as the history before
        this one; but of none that names a key that is believed, which would be one that is out of its place.
        """
        if recent:
            return head(recent, target)
        if self._is_set_back(recent):
            return None
        record = head(listed, target)
        one = next((one for one in listed if one.record == record), None)
        named = claimed_signer(self.repository, one) if one is not None else None
        believed = {each.fingerprint for each in self.signer.trusted.each}
        return record if named is not None and named not in believed else None

    def _number(self, listed: tuple[RecordedStatement, ...], recent: tuple[RecordedStatement, ...]) -> int:
        """Return the number for the next statement: higher than all that are signed, seen or listed.

        Where the mirror withholds some that were seen, none of those before is near it. Above half of the limit only
        the own key's count, so that there is room to grow: listed numbers are unverified, and who has stolen a former
        key could use up those of this one. Raises VerificationError `move-numbers-used-up`.
        """
        signed = (one.statement.number for one in recent if one.statement.number <= ROOM or self._own((one,), listed))
        said = (one.statement.number for one in listed if one.statement.number <= ROOM)
        number = max((self._seen, *signed, *said)) + 1
        if self._is_set_back(recent):
            number += NEAR
        if number >= STATEMENT_NUMBER_LIMIT:  # Two are written at once.
            raise VerificationError(
                "move-numbers-used-up",
                f"the last number is used up by a signed move of tag '{self.tag}'",
                place=f"{self.repository.url}:{self.tag}",
                hint="publish to another tag, or repository",
            )
        return number

    def _is_set_back(self, recent: tuple[RecordedStatement, ...]) -> bool:
        """Return whether a higher number was seen on the tag than the newest one that is signed."""
        return self._seen > max((one.statement.number for one in recent), default=0)

    def is_set_back(self, listed: tuple[RecordedStatement, ...]) -> bool:
        """Return whether the mirror, which lists `listed`, withholds what was seen before."""
        key = self.signer.trusted  # Whether they are there, too, is asked by who signs.
        return self._is_set_back(recent_statements(self.repository, self.identity, self.tag, key, listed=listed))

    def _listed(self) -> tuple[RecordedStatement, ...]:
        return self._written.among(list_statements(self.repository, self.identity, self.tag))

    def _recent(self, listed: tuple[RecordedStatement, ...] | None = None) -> tuple[RecordedStatement, ...]:
        key = self.signer.trusted
        return recent_statements(self.repository, self.identity, self.tag, key, written=self._written, listed=listed)

    def _find(self, record: Digest, listed: tuple[RecordedStatement, ...]) -> RecordedStatement | None:
        key = self.signer.trusted
        return find_statement(self.repository, self.identity, self.tag, record, key, listed=listed)
