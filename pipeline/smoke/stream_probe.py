"""Exchange with a port or socket, over new connections until the answer is right.

A server may send a wrong answer first ("still loading") and keep the connection: then it is asked again on another one,
soon and then less often. Another may answer slowly, in pieces, so that what has come is only the beginning: so earlier
connections are kept open and read for a while as well.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import field

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.probe import Unanswered
from pipeline.model.value_comparison import (
    mismatch,
    mismatch_is_final,
    quote_answer,
    unread_rest,
)
from pipeline.model.value_rules import Rule

PROBE_ANSWER_LIMIT = 1 << 20
"""Bytes read of an answer."""

_LONG = "ask for a shorter one"

TIMED_OUT = "timed out"
"""The result where nothing came until the deadline."""

INCOMPLETE = "the response was incomplete at the deadline"
"""The beginning of the result where the answer was still coming then."""

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1.0
"""Seconds without another byte of a wrong answer, after which it is asked again; longer each time."""

_IDLE_TIMEOUT = 1.0
"""Seconds without another byte, at least, after which an answer counts as complete and its connection is closed; a
quarter of the time that is left where that is more, because some servers answer in parts."""

_CONNECTIONS_MOST = 4
"""Connections at the same time: the first, which is given the longest, and the latest."""

_CONNECT_TIMEOUT = 1.0
"""Seconds for another connection, during which the others are not read."""


@dataclass(slots=True)
class _Connection:
    """One connection and what has come over it. `heard`: when the last of it came."""

    connection: socket.socket
    heard: float
    answer: bytes = b""

    def wrong(self, rules: Sequence[Rule]) -> str:
        return mismatch(rules, self.answer.decode(errors="replace"), "the answer")


@dataclass(slots=True)
class StreamProbe:
    """One probe of a port or socket, and the connections that it has opened.

    `connect` opens a connection within so many seconds, `send` is the question, `rules` hold for the answer.
    """

    connect: Callable[[float], socket.socket]
    send: bytes
    rules: Sequence[Rule]
    deadline: float
    _lines: list[_Connection] = field(default_factory=list)
    _told: bytes | None = None
    _failed: str = ""
    _pause: float = _FIRST_PAUSE
    _asked: float = 0.0
    _begun: float = 0.0

    def answer(self) -> bytes | str:
        """Ask until an answer is right, no connection is left, or the deadline has come.

        Returns the right answer, else the last one that is known to be wrong, else (a str) why there is none. Raises
        OSError if the first connection does, Unanswered if an answer that is right so far is longer than what is read.
        """
        try:
            self._ask(self.deadline - time.monotonic())
            if not self.rules:
                return b""
            self._begun = self._asked
            while self._lines and time.monotonic() < self.deadline:
                right = self._listen()
                right = self._give_up() if right is None else right
                if right is not None:
                    return right
                self._ask_anew()
            right = self._listen() if self._lines else None  # What came while this process did not run.
            if right is not None:
                return right
            # A rule that forbids something is met where nothing more came.
            for line in self._lines:
                if line.answer and not self._silent(line):
                    self._failed = f"{INCOMPLETE}, after {quote_answer(line.answer)}"
                elif line.answer and not line.wrong(self.rules):
                    return line.answer
            for line in filter(self._silent, reversed(self._lines)):
                self._note_wrong(line)
            return self._told if self._told is not None else self._failed or TIMED_OUT
        finally:
            for line in self._lines:
                line.connection.close()

    def _ask(self, within: float) -> None:
        connection = self.connect(max(0.001, within))
        try:
            if self.send:
                connection.sendall(self.send)
        except BaseException:
            connection.close()
            raise
        self._asked = time.monotonic()
        self._lines.append(_Connection(connection, self._asked))

    def _listen(self) -> bytes | None:
        """Read from all connections until the next action is due; return a right answer, if any."""
        with selectors.DefaultSelector() as selector:
            for line in self._lines:
                selector.register(line.connection, selectors.EVENT_READ, line)
            for key, _ in selector.select(max(0.001, self._next_action() - time.monotonic())):
                if self._receive(key.data):
                    return bytes(key.data.answer)
        return None

    def _receive(self, line: _Connection) -> bool:
        try:
            piece = line.connection.recv(65536)
        except OSError as error:
            self._failed = (
                f"{str(error) or type(error).__name__}{f', after {quote_answer(line.answer)}' if line.answer else ''}"
            )
            self._drop(line)
            return False
        line.answer += piece
        line.heard = time.monotonic()
        full = len(line.answer) > PROBE_ANSWER_LIMIT
        ended = not piece or full
        # A rule that forbids something is settled only by the whole answer.
        if (ended or all(rule.lacks is None for rule in self.rules)) and not line.wrong(self.rules):
            unread = unread_rest(self.rules, line.answer, "the answer", _LONG) if full else ""
            if unread:
                raise Unanswered(unread, settled=True)
            return True
        if ended or mismatch_is_final(self.rules, line.answer.decode(errors="replace")):
            self._note_wrong(line, ended=True)
            self._drop(line)
        return False

    def _give_up(self) -> bytes | None:
        """Close connections that were idle too long; return the answer of one that is right, if any."""
        for line in [line for line in self._lines if line.answer and time.monotonic() >= self._idle_until(line)]:
            if not line.wrong(self.rules):
                return line.answer
            self._note_wrong(line)
            self._drop(line)
        return None

    def _ask_anew(self) -> None:
        if not self._lines or time.monotonic() < self._next_attempt():
            return
        self._pause = min(self._pause * 1.5, _LAST_PAUSE)
        self._asked = time.monotonic()
        try:
            self._ask(min(_CONNECT_TIMEOUT, self.deadline - time.monotonic()))
        except OSError:
            return  # The others may still answer.
        if len(self._lines) > _CONNECTIONS_MOST:
            self._drop(self._lines[1])

    def _next_action(self) -> float:
        """Return the time of the next action (asking again, closing) if nothing comes."""
        return min(
            [self.deadline, self._next_attempt(), *(self._idle_until(line) for line in self._lines if line.answer)]
        )

    def _next_attempt(self) -> float:
        """Return the time at which to ask again.

        It is the deadline (never) while the latest connection has sent nothing, or its answer is right so far.
        """
        latest = self._lines[-1]
        if not latest.answer or not latest.wrong(self.rules):
            return self.deadline
        return max(latest.heard, self._asked) + self._pause

    def _idle_until(self, line: _Connection) -> float:
        return line.heard + max(_IDLE_TIMEOUT, (self.deadline - line.heard) / 4)

    def _silent(self, line: _Connection) -> bool:
        """Return whether the other side had said all that it had to say by the deadline."""
        return self.deadline - line.heard >= min(_FIRST_PAUSE, (self.deadline - self._begun) / 4)

    def _note_wrong(self, line: _Connection, *, ended: bool = False) -> None:
        if line.wrong(self.rules) and (line.answer or ended):
            self._told = line.answer

    def _drop(self, line: _Connection) -> None:
        self._lines.remove(line)
        line.connection.close()
