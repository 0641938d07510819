"""Send HTTP requests with deadlines for connect and response headers and a minimum speed.

The HTTP library's timeouts are for one read from a socket. A server that sends a byte every few seconds, or interim
responses (1xx) without end, never exceeds them. So the sockets themselves are watched: each request has a
`RequestDeadlines`, which gives every operation its timeout and checks the throughput in windows of time
(docs/decisions/0021-deadlines-and-realms.md).
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar

import httpcore
import httpx

from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.host_lookup import look_up_host

_PIECE = 64 << 10
"""Bytes that are written to a socket at a time: the throughput is checked between two pieces."""

_HELD = 64 << 10
"""Bytes of a request that are held until its next bytes come or its response is read. The library writes headers and
each piece of a body by itself; in one segment they do not wait for each other's acknowledgement anywhere on the way,
which takes 40 ms where a proxy forwards without TCP_NODELAY."""

_AFTER_FAILED_WRITE = 5.0
"""Seconds to wait for a response after the request could not be sent completely. A server that refuses a request
responds at once and closes; one that has half of it would wait for the rest, as long as a response may take."""

_AVERAGE_AFTER = 4
"""Time allowed for any body that is read into memory, as a multiple of the longer one of `answer` and `window`."""
_AVERAGE_OVER = 16
"""Average throughput demanded of such a body beyond that time, as a multiple of `floor`: so that none takes hours."""


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """Time limits and minimum throughput of one request.

    `connect`: seconds to connect; `answer`: seconds until all response headers are received; `floor`: bytes per second
    in each window of `window` seconds, one byte at least.
    """

    connect: float
    answer: float
    window: float
    floor: float

    def time_limit(self, size: int) -> float:
        """Return the seconds within which `size` bytes of a body read into memory must be received."""
        return _AVERAGE_AFTER * max(self.answer, self.window) + size / max(1.0, _AVERAGE_OVER * self.floor)


class RequestDeadlines:
    """Deadlines of one request in progress; for one thread.

    `whole`: the body is read into memory, and its average throughput is checked too.
    """

    def __init__(
        self, bounds: RequestBounds, *, whole: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bounds = bounds
        self._whole = whole
        self._clock = clock
        self._deadline: float | None = None
        self._began = self._window = clock()
        self._bytes = self._in_window = 0
        self._in_body = self._incomplete = False

    def start_body(self) -> None:
        """Note that all response headers are received: what is read from now on is the body."""
        self._in_body = True
        self._began = self._window = self._clock()
        self._bytes = self._in_window = 0

    def note_incomplete_request(self) -> None:
        """Note that the request could not be sent completely."""
        self._incomplete = True

    def read_timeout(self) -> float:
        """Return the seconds that the next read may take. Raises httpcore.ReadTimeout."""
        now = self._clock()
        if not self._in_body:
            seconds = min(self.bounds.answer, _AFTER_FAILED_WRITE) if self._incomplete else self.bounds.answer
            if self._deadline is None:
                self._deadline = now + seconds
            if now >= self._deadline:
                sent = ", and the request was not sent completely" if self._incomplete else ""
                raise httpcore.ReadTimeout(f"no answer within {seconds:g} s{sent}")
            return self._deadline - now
        self._judge(now, httpcore.ReadTimeout)
        return max(0.001, self._window + self.bounds.window - now)

    def write_timeout(self) -> float:
        """Return the seconds that the next write may take. Raises httpcore.WriteTimeout."""
        if self._deadline is not None:  # another request over the same connection, or one after a proxy's response
            self._deadline = None
            self._window, self._in_window = self._clock(), 0
        self._judge(self._clock(), httpcore.WriteTimeout)
        return self.bounds.window

    def count_bytes(self, size: int) -> None:
        """Count bytes that were written or read."""
        self._bytes += size
        self._in_window += size

    def _judge(self, now: float, error: Callable[[str], Exception]) -> None:
        if now - self._window >= self.bounds.window:
            if self._in_window < max(1.0, self.bounds.floor * self.bounds.window):
                raise error(
                    f"too slow: {self._in_window} bytes in {now - self._window:.0f} s, less than "
                    f"{self.bounds.floor:g} bytes per second"
                )
            self._window, self._in_window = now, 0
        if self._whole and self._in_body and now - self._began > self.bounds.time_limit(self._bytes):
            raise error(f"too slow: {self._bytes} bytes in {now - self._began:.0f} s")


_current: ContextVar[RequestDeadlines | None] = ContextVar("watch", default=None)


def send_request(client: httpx.Client, request: httpx.Request, watch: RequestDeadlines) -> httpx.Response:
    """Send a request under `watch` and return the response with its body unread.

    Raises httpx's errors, also where its libraries raise ValueError or UnicodeError over a server's response or name (a
    Content-Length of 5,000 digits, a host's label of 64 characters).
    """
    before = _current.set(watch)
    try:
        response = client.send(request, stream=True)
    except (ValueError, OverflowError) as error:
        raise httpx.ProtocolError(f"invalid response or address: {str(error)[:200]}") from error
    finally:
        _current.reset(before)
    watch.start_body()
    return response


def build_request(
    client: httpx.Client, method: str, url: str, headers: Mapping[str, str], content: Iterable[bytes] | None = None
) -> httpx.Request:
    """Build a request. Raises httpx.InvalidURL, also where the library raises ValueError."""
    try:
        return client.build_request(method, url, headers=dict(headers), content=content)
    except ValueError as error:
        raise httpx.InvalidURL(str(error)[:200]) from error


@contextlib.contextmanager
def stream_request(client: httpx.Client, request: httpx.Request, watch: RequestDeadlines) -> Iterator[httpx.Response]:
    """Send a request as `send_request` does; the block's end releases its connection."""
    response = send_request(client, request, watch)
    try:
        yield response
    finally:
        response.close()


def with_deadlines(transport: httpx.HTTPTransport) -> httpx.HTTPTransport:
    """Make a transport's sockets obey the `RequestDeadlines` of their requests; return it."""
    pool = transport._pool
    pool._network_backend = _Backend(pool._network_backend)
    return transport


class _Backend(httpcore.NetworkBackend):
    """Network backend that opens connections by another one, and wraps them in `_Stream`."""

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
        """Connect to the first of the host's addresses that accepts.

        Each address gets an equal share of the time that is left.
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
    """A connection under the deadlines of the request that was last written to it.

    Small writes are held back and sent with what follows, at the latest before a response is read.
    """

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._watch = _current.get()
        self._held = bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read the next bytes; none at the end."""
        # As the HTTP library does with its own writes: what a server says that takes no more is read all the same.
        with contextlib.suppress(httpcore.WriteError):
            self._send_held(timeout)
        if self._watch is None:
            return self._inner.read(max_bytes, timeout)
        while True:
            seconds = self._watch.read_timeout()
            try:
                data = self._inner.read(max_bytes, seconds)
            except httpcore.ReadTimeout:
                continue  # `read_timeout` decides
            self._watch.count_bytes(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`, at the latest before the next read."""
        self._watch = _current.get() or self._watch
        if len(self._held) + len(buffer) <= _HELD:
            self._held += buffer
            return
        self._send_held(timeout, buffer)

    def _send_held(self, timeout: float | None, further: bytes = b"") -> None:
        """Send what was held, and then `further`."""
        first = bytes(self._held) + further[: _PIECE - len(self._held)]
        taken, self._held = len(first) - len(self._held), bytearray()
        self._send(first, timeout)
        self._send(memoryview(further)[taken:], timeout)

    def _send(self, buffer: bytes | memoryview, timeout: float | None) -> None:
        for start in range(0, len(buffer), _PIECE):
            piece = bytes(buffer[start : start + _PIECE])
            if self._watch is None:
                self._inner.write(piece, timeout)
                continue
            try:
                self._inner.write(piece, self._watch.write_timeout())
            except httpcore.WriteError:  # The HTTP library reads the response all the same, which may say why.
                self._watch.note_incomplete_request()
                raise
            self._watch.count_bytes(len(piece))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return the connection with TLS."""
        self._send_held(timeout)
        seconds = self._watch.bounds.connect if self._watch else timeout
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> object:
        """Return information of the wrapped connection, by name."""
        known: object = self._inner.get_extra_info(info)
        return known
