"""Limit the connections and requests of `relbuild serve` in number, idle and stalled time.

So silent or slow clients do not exclude others. A connection is idle while no request on it is being answered. When
there are too many, in all or from one address, the one that is idle for the longest is dropped. A request's headers
must arrive within a time, and a client must go on reading its response.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REQUESTS_AT_ONCE = 64
"""Requests that are answered at once; more get status 503."""

REQUESTS_AT_ONCE_EACH = 48
"""The same for one address, so that others are answered too: podman sends six requests at once."""

CONNECTIONS_MOST = 256
"""Open connections: far below the 1,024 files that a process may usually have open."""

CONNECTIONS_MOST_EACH = 192
"""The same for one address; there may be several clients behind one."""

HEAD_SECONDS = 10.0
"""Seconds until all headers of a request have arrived."""

STALLED_SECONDS = 30.0
"""Seconds until a client has read something of a response that waits for it: half of nginx's default."""


class BoundedConnection(H11Protocol):
    """A connection of uvicorn with these limits; `connections` are all those of the server."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a new connection; where there are too many, drop an idle one, else this one."""
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
        """Stop the timers."""
        self._unset_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; start the timer for its headers, or stop it when they are here."""
        super().data_received(data)
        if self.answering and self._head is not None:
            self._head.cancel()
            self._head = None
        elif not self.answering and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.drop)

    def on_response_complete(self) -> None:
        """Note that the connection is idle from now on, until the next request."""
        self._unset_timers()
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read its response."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_SECONDS, self.drop)

    def resume_writing(self) -> None:
        """Stop the timer: the client reads again."""
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
        """Close the connection at once; unsent data is lost."""
        self._unset_timers()
        self.connections.discard(self)
        self.transport.abort()

    def _unset_timers(self) -> None:
        for timer in (self._head, self._stall):
            if timer is not None:
                timer.cancel()
        self._head = self._stall = None


def _drop_idle(among: list[BoundedConnection]) -> bool:
    """Drop the connection that is idle for the longest; return False if none is idle."""
    idle = [one for one in among if not one.answering]
    if not idle:
        return False
    min(idle, key=lambda one: one._idle_since).drop()
    return True


def limit_requests(application: ASGIApp, refuse: ASGIApp) -> ASGIApp:
    """Limit the ASGI application's requests at a time, in all and per client address.

    `refuse` answers the others.
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
