"""Deadlines for connecting and for the head of an answer, and a floor of a server's speed.

The HTTP library's time-outs are for one read from a socket. A server that sends a byte every few seconds, or interim
answers (1xx) without end, keeps within them for ever. So the sockets themselves are watched: each request has a
`RequestDeadlines`, which tells every operation how long it may last, and judges what moved over windows of time
(docs/decisions/0021-deadlines-and-realms.md).
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

import httpcore
import httpx

from pipeline.transfer.host_lookup import look_up_host

_PIECE = 64 << 10
"""Bytes that are handed to a socket at a time: between two pieces it is judged how fast they go."""

_AFTER_FAILED_WRITE = 5.0
"""Seconds for which an answer is awaited once the request could not be sent whole: a server that refuses a request says
so at once and closes, and one that has half of it waits for the rest, as long as an answer may take."""

_AVERAGE_AFTER = 4
"""Answers that are held in memory are small: after so many times the deadline of their head …"""
_AVERAGE_OVER = 16
"""… they must have moved with so many times the floor on average, so that none takes hours."""


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """The time limits and the least throughput of one request.

    Seconds to connect, and until the head of an answer is whole; and the bytes per second (`floor`) that each window of
    so many seconds must bring, one byte at least.
    """

    connect: float
    answer: float
    window: float
    floor: float

    def at_most(self, size: int) -> float:
        """Seconds after which so many bytes of an answer that is held in memory must have come."""
        return _AVERAGE_AFTER * max(self.answer, self.window) + size / max(1.0, _AVERAGE_OVER * self.floor)


class RequestDeadlines:
    """The time limits of one request, measured as it runs; for one thread.

    `whole`: the body goes into memory, and its average is judged too.
    """

    def __init__(
        self, bounds: RequestBounds, *, whole: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bounds = bounds
        self._whole = whole
        self._clock = clock
        self._deadline: float | None = None
        self._began = self._window = clock()
        self._moved = self._in_window = 0
        self._in_body = self._cut = False

    def body(self) -> None:
        """The head of the answer is here; what is read from now on is its body."""
        self._in_body = True
        self._began = self._window = self._clock()
        self._moved = self._in_window = 0

    def cut(self) -> None:
        """Note that the request could not be sent whole."""
        self._cut = True

    def reading(self) -> float:
        """Seconds that the next read may take. Raises httpcore.ReadTimeout."""
        now = self._clock()
        if not self._in_body:
            patience = min(self.bounds.answer, _AFTER_FAILED_WRITE) if self._cut else self.bounds.answer
            if self._deadline is None:
                self._deadline = now + patience
            if now >= self._deadline:
                sent = ", and the request was not sent completely" if self._cut else ""
                raise httpcore.ReadTimeout(f"no answer within {patience:g} s{sent}")
            return self._deadline - now
        self._judge(now, httpcore.ReadTimeout)
        return max(0.001, self._window + self.bounds.window - now)

    def writing(self) -> float:
        """Seconds that the next write may take. Raises httpcore.WriteTimeout."""
        if self._deadline is not None:  # another request over the same connection, or one after a proxy's answer
            self._deadline = None
            self._window, self._in_window = self._clock(), 0
        self._judge(self._clock(), httpcore.WriteTimeout)
        return self.bounds.window

    def moved(self, size: int) -> None:
        """So many bytes went or came."""
        self._moved += size
        self._in_window += size

    def _judge(self, now: float, error: Callable[[str], Exception]) -> None:
        if now - self._window >= self.bounds.window:
            if self._in_window < max(1.0, self.bounds.floor * self.bounds.window):
                raise error(
                    f"too slow: {self._in_window} bytes in {now - self._window:.0f} s, less than "
                    f"{self.bounds.floor:g} bytes per second"
                )
            self._window, self._in_window = now, 0
        if self._whole and self._in_body and now - self._began > self.bounds.at_most(self._moved):
            raise error(f"too slow: {self._moved} bytes in {now - self._began:.0f} s")


_current: ContextVar[RequestDeadlines | None] = ContextVar("watch", default=None)


def send_request(client: httpx.Client, request: httpx.Request, watch: RequestDeadlines) -> httpx.Response:
    """Send a request under `watch` and return the answer with its body unread.

    As `httpx.Client.send` does. Raises httpx's own errors: also where those below it raise ValueError or UnicodeError
    over what a server sent or is called (a Content-Length of 5,000 digits, a host's label of 64 characters).
    """
    before = _current.set(watch)
    try:
        response = client.send(request, stream=True)
    except (ValueError, OverflowError) as error:
        raise httpx.ProtocolError(f"invalid response or address: {str(error)[:200]}") from error
    finally:
        _current.reset(before)
    watch.body()
    return response


def build_request(
    client: httpx.Client, method: str, url: str, headers: Mapping[str, str], content: Iterable[bytes] | None = None
) -> httpx.Request:
    """A request. Raises httpx.InvalidURL, also for what makes the library raise ValueError."""
    try:
        return client.build_request(method, url, headers=dict(headers), content=content)
    except ValueError as error:
        raise httpx.InvalidURL(str(error)[:200]) from error


@contextlib.contextmanager
def stream_request(client: httpx.Client, request: httpx.Request, watch: RequestDeadlines) -> Iterator[httpx.Response]:
    """`send`, and the connection given back at the end."""
    response = send_request(client, request, watch)
    try:
        yield response
    finally:
        response.close()


def with_deadlines(transport: httpx.HTTPTransport) -> httpx.HTTPTransport:
    """The same transport with its sockets under watch."""
    pool = transport._pool
    pool._network_backend = _Backend(pool._network_backend)
    return transport


class _Backend(httpcore.NetworkBackend):
    """Opens connections as another does, and watches them."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that answers.

        Each address has its share of the time that is left.
        """
        watch = _current.get()
        if watch is None:
            return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))
        until = time.monotonic() + watch.bounds.connect
        addresses = _addresses(host, watch.bounds.connect)
        for left in range(len(addresses), 0, -1):
            seconds = max(0.001, until - time.monotonic()) / left
            try:
                return _Stream(self._inner.connect_tcp(addresses[-left], port, seconds, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore.ConnectError(f"the name '{host}' has no address")


def _addresses(host: str, seconds: float) -> tuple[str, ...]:
    try:
        return look_up_host(host, seconds)
    except TimeoutError:
        raise httpcore.ConnectTimeout(f"the name '{host[:253]}' was not resolved within {seconds:g} s") from None
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.NetworkStream):
    """A connection that belongs to the request that was last written to it."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._watch = _current.get()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, or none at the end."""
        if self._watch is None:
            return self._inner.read(max_bytes, timeout)
        while True:
            seconds = self._watch.reading()
            try:
                data = self._inner.read(max_bytes, seconds)
            except httpcore.ReadTimeout:
                continue  # `reading` decides
            self._watch.moved(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of `buffer`."""
        self._watch = _current.get() or self._watch
        if self._watch is None:
            self._inner.write(buffer, timeout)
            return
        for start in range(0, len(buffer), _PIECE):
            piece = buffer[start : start + _PIECE]
            try:
                self._inner.write(piece, self._watch.writing())
            except httpcore.WriteError:  # The HTTP library reads on: the server may have said why.
                self._watch.cut()
                raise
            self._watch.moved(len(piece))

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same, encrypted."""
        seconds = self._watch.bounds.connect if self._watch else timeout
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> object:
        """Return what the connection knows of itself."""
        known: object = self._inner.get_extra_info(info)
        return known
