"""Connections of `relbuild serve`, bounded in number and in time.

So those who say nothing keep nobody out.

A connection is idle while no request on it is being answered. When there are too many, in all or from one address, the
one that is idle for the longest goes. A request's head must arrive, and an answer be taken, within a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REQUESTS_AT_ONCE = 64
"""Requests that are answered at once; more are told to come again (503)."""

REQUESTS_AT_ONCE_EACH = 48
"""The same for one address, so that others are answered too: podman asks for six things at once."""

CONNECTIONS_MOST = 256
"""Open connections: far below the 1,024 files that a process may usually have open."""

CONNECTIONS_MOST_EACH = 192
"""The same for one address; behind one there may be several who pull."""

HEAD_SECONDS = 10.0
"""Until the whole head of a request has arrived."""

STALLED_SECONDS = 30.0
"""Until a client has taken something of an answer that waits for it: half of what nginx gives."""


class BoundedConnection(H11Protocol):
    """One connection of uvicorn's; `connections` are all of the server's."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection takes the place of an idle one where there are too many."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._idle_since = self.loop.time()
        others = [one for one in self.connections if isinstance(one, BoundedConnection) and one is not self]
        own = [one for one in others if one._address == self._address]
        for among, limit in ((own, CONNECTIONS_MOST_EACH), (others, CONNECTIONS_MOST)):
            if len(among) >= limit and not _drop_idle(among):
                self.drop()
                return
        self._head = self.loop.call_later(HEAD_SECONDS, self.drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        self._unset_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request: its head has arrived, or must within the time that runs."""
        super().data_received(data)
        if self.answering and self._head is not None:
            self._head.cancel()
            self._head = None
        elif not self.answering and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.drop)

    def on_response_complete(self) -> None:
        """The connection is idle from now on, until the next request."""
        self._unset_timers()
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes nothing at the moment."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_SECONDS, self.drop)

    def resume_writing(self) -> None:
        """The client takes again what it is given."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    @property
    def answering(self) -> bool:
        """Return whether a request on the connection is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def drop(self) -> None:
        """End it at once; what was not sent yet is lost."""
        self._unset_timers()
        self.connections.discard(self)
        self.transport.abort()

    def _unset_timers(self) -> None:
        for timer in (self._head, self._stall):
            if timer is not None:
                timer.cancel()
        self._head = self._stall = None


def _drop_idle(among: list[BoundedConnection]) -> bool:
    """Drop the one that is idle for the longest; False if none is."""
    idle = [one for one in among if not one.answering]
    if not idle:
        return False
    min(idle, key=lambda one: one._idle_since).drop()
    return True


def limit_requests(application: ASGIApp, refuse: ASGIApp) -> ASGIApp:
    """Limit the application to `REQUESTS_AT_ONCE` requests at a time.

    `refuse` answers those that are too many.
    """
    under_way: Counter[str] = Counter()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        client: Any = scope.get("client")
        address = str(client[0]) if client else ""
        if under_way.total() >= REQUESTS_AT_ONCE or under_way[address] >= REQUESTS_AT_ONCE_EACH:
            await refuse(scope, receive, send)
            return
        under_way[address] += 1
        try:
            await application(scope, receive, send)
        finally:
            under_way[address] -= 1
            if not under_way[address]:
                del under_way[address]

    return answer
