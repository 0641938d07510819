"""The watch over one request, and the bounds and proxies that the environment sets."""

from __future__ import annotations

import contextlib

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.transfer import (
    Network,
)
from pipeline.transfer.deadlines import (
    RequestBounds,
    RequestDeadlines,
    _Backend,
    _current,
    _Stream,
    with_deadlines,
)

BOUNDS = RequestBounds(connect=1, answer=10, window=10, floor=100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0.001, 9.99), st.integers(0, 1 << 20)), min_size=1, max_size=30))
def test_a_head_is_whole_in_time_however_much_comes_meanwhile(reads: list[tuple[float, int]]) -> None:
    clock = Clock()
    watch = RequestDeadlines(BOUNDS, clock=clock)
    watch.write_timeout()
    began = clock.now
    try:
        for seconds, size in reads:
            assert watch.read_timeout() <= began + BOUNDS.answer - clock.now + 1e-9
            clock.now += seconds
            watch.count_bytes(size)
            assert clock.now < began + 2 * BOUNDS.answer
    except httpcore.ReadTimeout:
        assert clock.now >= began + BOUNDS.answer


@given(st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 5000)), min_size=1, max_size=50))
def test_a_body_is_left_within_two_windows_of_slowness_and_never_for_less(reads: list[tuple[float, int]]) -> None:
    """Law: whoever brings the floor in every window goes on; a window below it ends the transfer when it is judged."""
    clock = Clock()
    watch = RequestDeadlines(BOUNDS, clock=clock)
    watch.start_body()
    start, moved = clock.now, 0
    for seconds, size in reads:
        slow = clock.now - start >= BOUNDS.window and moved < BOUNDS.floor * BOUNDS.window
        try:
            left = watch.read_timeout()
        except httpcore.ReadTimeout:
            assert slow
            return
        assert not slow and 0 < left <= BOUNDS.window + 1e-9
        if clock.now - start >= BOUNDS.window:
            start, moved = clock.now, 0
        clock.now += min(seconds, left)
        watch.count_bytes(size)
        moved += size


def test_a_document_that_just_keeps_the_floor_does_not_take_hours() -> None:
    clock = Clock()
    watch = RequestDeadlines(BOUNDS, whole=True, clock=clock)
    watch.start_body()
    with pytest.raises(httpcore.ReadTimeout):
        while clock.now < 3600:
            watch.read_timeout()
            clock.now += 5
            watch.count_bytes(int(BOUNDS.floor * 5) + 1)
    assert 40 < clock.now < 100


class Broken(httpcore.NetworkStream):
    """A connection that takes nothing and says nothing; reading takes as long as it may."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        raise httpcore.WriteError("EIO")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert timeout is not None
        self.clock.now += timeout
        raise httpcore.ReadTimeout

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_who_could_not_send_a_request_whole_does_not_wait_as_long_as_an_answer_may_take(size: int) -> None:
    clock = Clock()
    watch = RequestDeadlines(RequestBounds(connect=15, answer=300, window=30, floor=1000), clock=clock)
    stream, before = _Stream(Broken(clock)), _current.set(watch)
    try:
        with contextlib.suppress(httpcore.WriteError):  # As the HTTP library does; a small one is sent by the read.
            stream.write(bytes(size))
        with pytest.raises(httpcore.ReadTimeout, match="not sent completely"):
            stream.read(1)
    finally:
        _current.reset(before)
    assert 0 < clock.now <= 10


class Written(httpcore.NetworkStream):
    """A connection that notes what is written to it at a time, and answers every request."""

    def __init__(self) -> None:
        self.segments: list[bytes] = []

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.segments.append(buffer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"

    def close(self) -> None:
        """Nothing to close."""


class Connected(httpcore.NetworkBackend):
    """A network on which every host is the one connection."""

    def __init__(self, stream: Written) -> None:
        self.stream = stream

    def connect_tcp(self, *_: object, **__: object) -> httpcore.NetworkStream:
        return self.stream


@pytest.mark.parametrize("body", [[b"{}"], [b"x" * 30_000, b"y" * 30_000], [b"z" * 200_000]], ids=len)
def test_headers_wait_for_no_acknowledgement_before_their_body(body: list[bytes]) -> None:
    """In segments of their own, Nagle's algorithm on the way and a delayed acknowledgement cost 40 ms."""
    seen = Written()
    with httpx.Client(transport=with_deadlines(httpx.HTTPTransport())) as client:
        transport = client._transport_for_url(httpx.URL("http://host.test"))
        assert isinstance(transport, httpx.HTTPTransport)
        backend = transport._pool._network_backend
        assert isinstance(backend, _Backend)
        backend._inner = Connected(seen)
        for _ in range(2):
            size = str(sum(map(len, body)))
            answer = client.put("http://host.test/v2/", content=iter(body), headers={"Content-Length": size})
            assert answer.status_code == 201
    sent = b"".join(seen.segments)
    assert sent.count(b"PUT /v2/ HTTP/1.1\r\n") == 2 and sent.count(b"".join(body)) == 2
    assert seen.segments[0].startswith(b"PUT /v2/") and body[0][:1000] in seen.segments[0]
    if len(sent) < 2 * (64 << 10):
        assert len(seen.segments) == 2


def test_every_connection_is_watched_directly_and_through_proxies() -> None:
    """The socket's place in the library is no public name: this is what a new version would break."""
    for network in (Network(), Network(http_proxy="http://127.0.0.1:1", https_proxy="http://127.0.0.1:1")):
        with network.client() as client:
            for url in ("http://host.test/", "https://host.test/"):
                transport = client._transport_for_url(httpx.URL(url))
                assert isinstance(transport, httpx.HTTPTransport)
                assert isinstance(transport._pool._network_backend, _Backend)


def test_bounds_come_from_the_environment_and_nonsense_is_refused() -> None:
    network = Network.of({"RELBUILD_TIMEOUT": "120", "RELBUILD_MINRATE": "0"})
    assert (network.timeout, network.minrate) == (120.0, 0)
    assert network.bounds().answer == 120.0
    assert network.hurry().bounds().answer < 30
    assert (Network.of({}).timeout, Network.of({}).minrate) == (30.0, 1000)
    for name, text in [
        ("TIMEOUT", "0"),
        ("TIMEOUT", "-1"),
        ("TIMEOUT", "9" * 5000),
        ("MINRATE", "1e3"),
        ("MINRATE", "x"),
    ]:
        with pytest.raises(UsageError) as caught:
            Network.of({f"RELBUILD_{name}": text})
        assert caught.value.code == "network-variable"


@pytest.mark.parametrize("proxy", ["ftp://u:SECRET@h/", "u:SECRET@h:99999", "http://u:SECRET@[", "http://"])
def test_a_proxy_that_is_none_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(UsageError) as caught:
        Network.of({"http_proxy": proxy})
    assert caught.value.code == "network-variable"
    assert "SECRET" not in str(caught.value)


def test_a_proxy_without_a_scheme_is_http_and_not_shown() -> None:
    network = Network.of({"https_proxy": "u:SECRET@proxy:3128"})
    assert network.https_proxy == "http://u:SECRET@proxy:3128"
    assert "SECRET" not in repr(network)
