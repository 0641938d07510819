"""Signed statements of where tags point, made around each move and renewed later.

A move is signed before it is made, and once it is seen to be made that it is so; and that again before what was said is
too old to be believed.

A publisher that is killed between the two leaves a tag that points where it did, or where it was to point: who verifies
believes either (`pipeline.model.tag_chain.believable`), until the next publication or renewal says which.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_statements import (
    MOVE_MILLISECONDS,
    STATEMENT_NUMBER_LIMIT,
    TagSigner,
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
from pipeline.model.tag_chain import believable, head

RENEWAL_SHARE = 0.75
"""The part of its validity that a statement has left when it is renewed: a night that is repeated within the hour
leaves the mirror alone, and nights may fail for days before anything is too old."""


@dataclass(frozen=True, slots=True)
class SignedTag:
    """The signed statements of one tag, for one who adds to them.

    `identity` is the repository's signed name.
    """

    repository: Repository
    identity: str
    tag: str
    signer: TagSigner

    def announce(self, move: Move) -> None:
        """Sign a move that is about to be made, from what the tag was found to point to."""
        listed = self._listed()
        recent = self._recent()
        # Where another key signed until now, its moves go on as history.
        self._write(move, self._number(listed, recent), head(recent or listed, move.before))

    def settle(self, digest: Digest, version: str, why: MoveCause) -> bool:
        """Sign that the tag stands at `digest`, where it was moved or found.

        Nothing is signed that was signed already and is young, nor if it points elsewhere by now. `why`: what a move is
        called that nobody had signed.

        Returns whether anything was signed.
        """
        listed = self._listed()  # Before the tag is looked at: who moves it after that signs a higher number.
        recent = self._recent()
        if self.repository.resolve(self.tag) != digest or self._settled(recent, digest):
            return False
        number = self._number(listed, recent)
        last = head(recent, digest)
        if not any(one.statement.move.after == digest for one in recent):
            before = next((one.statement.move.after for one in recent if one.statement.renews), None)
            record = self._write(Move(self.tag, before, digest, self.signer.now, why, version), number, last).record
            if last is None:
                return True
            last, number = record, number + 1
        renewal = self._write(Move(self.tag, None, digest, self.signer.now, MoveCause.RENEW, version), number, last)
        tidy_statements(self.repository, renewal.statement, self.signer.key.public, self.signer.now)
        return True

    def believed_until(self, digest: Digest) -> int | None:
        """Return until when it is believed that the tag points to `digest`.

        Milliseconds since the epoch; None: it is not believed.
        """
        believed, newest = believable(self._recent(), self._find)
        return newest[0].statement.until if digest in believed else None

    @property
    def under_way(self) -> bool:
        """Return whether a signed move of the tag may be under way just now."""
        recent = self._recent()
        if not recent or recent[0].statement.renews or len(believable(recent, self._find)[0]) == 1:
            return False
        return 0 <= self.signer.now - recent[0].statement.move.at < MOVE_MILLISECONDS

    @property
    def version(self) -> str:
        """The version of what it points to, as the newest statement says."""
        recent = self._recent()
        return recent[0].statement.move.version if recent else ""

    def _settled(self, recent: tuple[RecordedStatement, ...], digest: Digest) -> bool:
        believed, newest = believable(recent, self._find)
        if not newest:
            return False
        # A move that was given up stays among what is believed, until the next one is made.
        if not all(one.statement.move.after == digest for one in newest):
            return False
        if believed != {digest} and not newest[0].statement.renews:
            return False
        said = newest[0].statement
        left = said.until - self.signer.now
        young = left >= RENEWAL_SHARE * self.signer.validity * 1000
        return young and said.number >= self.signer.seen(self.repository, self.tag)

    def _write(self, move: Move, number: int, previous: Digest | None) -> RecordedStatement:
        until = self.signer.now + self.signer.validity * 1000
        said = TagStatement(self.identity, move, number, previous, until)
        written = write_statement(self.repository, said, self.signer.key)
        if self.signer.memory is not None:
            self.signer.memory.see(self.repository.url, self.tag, number)
        return written

    def _number(self, listed: tuple[RecordedStatement, ...], recent: tuple[RecordedStatement, ...]) -> int:
        """Return the number for the next statement: higher than all that are known.

        Known are those that were signed, seen, or are listed: what nobody verified leaves half of the room.
        """
        signed = (one.statement.number for one in recent)
        said = (one.statement.number for one in listed if one.statement.number <= STATEMENT_NUMBER_LIMIT // 2)
        return max((self.signer.seen(self.repository, self.tag), *signed, *said)) + 1

    def _listed(self) -> tuple[RecordedStatement, ...]:
        return list_statements(self.repository, self.identity, self.tag)

    def _recent(self) -> tuple[RecordedStatement, ...]:
        return recent_statements(self.repository, self.identity, self.tag, self.signer.key.public)

    def _find(self, record: Digest) -> RecordedStatement | None:
        return find_statement(self.repository, self.identity, self.tag, record, self.signer.key.public)
