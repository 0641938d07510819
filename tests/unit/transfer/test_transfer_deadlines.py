"""A server that is slow is left, whatever it does meanwhile; one that is wrong is asked again after the others."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, UsageError, VerificationError
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import (
    CredentialStore,
    Download,
    FileRange,
    Network,
    RegistryClient,
    Scope,
    TransientFailure,
    fetch,
    fetch_document,
)
from pipeline.transfer import host_lookup as addresses_module
from pipeline.transfer import registry_http as exchange_module
from pipeline.transfer.deadlines import (
    RequestBounds,
    RequestDeadlines,
    _Backend,
    _current,
    _Stream,
    with_deadlines,
)
from tests.support.slow_server import CONTENT, PAGE, SlowServer, head

pytestmark = pytest.mark.long
DIGEST = Digest.of(CONTENT)
NETWORK = Network(timeout=0.6, backoff=0.001, attempts=2)
HURRY = Network(timeout=3, backoff=0.001, attempts=2)
"""A sixth of it is what a good server gets, too. Where that is too little, on a busy machine, both are asked again."""
SLOW = ("headers", "interim", "silent", "trickle", "chunks", "stall", "thenheaders")
PULL = (Scope.repository("app", "pull"),)


def get(store: Store, *urls: str, network: Network = NETWORK) -> Digest:
    (digest,) = fetch(store, [Download(urls, DIGEST, len(CONTENT), "thing")], progress=QUIET, network=network)
    return digest


# --- a resolver without an answer ------------------------------------------------------------------


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names below `silent.example` are never resolved; those that were asked for."""
    ended = threading.Event()
    asked: list[str] = []
    original = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **named: Any) -> Any:
        asked.append(host)
        if host.endswith("silent.example"):
            ended.wait(60)
            raise socket.gaierror("the test has ended")
        return original(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked
    ended.set()


def test_a_name_that_is_never_resolved_ends_with_the_networks_error(store: Store, silent_resolver: list[str]) -> None:
    with pytest.raises(EnvironmentLacking, match=r"'a\.silent\.example' was not resolved within") as caught:
        get(store, "http://a.silent.example/good")
    assert caught.value.code == "network-unreachable"
    assert silent_resolver == ["a.silent.example"], "a second attempt shares the first one's question"


def test_a_host_whose_name_is_never_resolved_is_left_for_the_next_one(
    server: SlowServer, store: Store, silent_resolver: list[str]
) -> None:
    get(store, "http://b.silent.example/good", f"{server.url}/good", network=HURRY)
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_each_address_of_a_name_is_tried(server: SlowServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
    resolver = SimpleNamespace(getaddrinfo=lambda *_, **__: answers, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr(addresses_module, "socket", resolver)
    get(store, server.url.replace("127.0.0.1", "two.example") + "/good")
    assert store.blob(DIGEST).read_bytes() == CONTENT


# --- a slow server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SLOW)
def test_a_slow_host_is_left_for_the_next_one(server: SlowServer, store: Store, how: str) -> None:
    get(store, f"{server.url}/{how}", f"{server.url}/good", network=HURRY)
    assert store.blob(DIGEST).read_bytes() == CONTENT
    assert server.order[: server.order.index("/good")].count(f"/{how}") == 1


@pytest.mark.parametrize("how", SLOW)
def test_a_document_of_a_slow_host_comes_from_the_next_one(server: SlowServer, how: str) -> None:
    urls = [f"{server.url}/{how}", f"{server.url}/good"]
    assert fetch_document(urls, limit=1 << 20, network=HURRY) == CONTENT
    assert server.order[: server.order.index("/good")].count(f"/{how}") == 1


@pytest.mark.parametrize("how", SLOW)
def test_a_slow_host_that_is_alone_ends_with_the_networks_error(server: SlowServer, store: Store, how: str) -> None:
    with pytest.raises(EnvironmentLacking, match=r"no answer within|too slow") as caught:
        get(store, f"{server.url}/{how}")
    assert caught.value.code == "network-unreachable"
    assert "RELBUILD_TIMEOUT" in str(caught.value)
    assert server.asked[f"/{how}"] == NETWORK.attempts


@pytest.mark.parametrize("how", ["headers", "interim", "silent", "trickle", "chunks"])
def test_a_slow_registry_ends_with_its_error(server: SlowServer, how: str) -> None:
    exchange = RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({}))
    with exchange, pytest.raises(EnvironmentLacking, match=r"no answer within|too slow") as caught:
        exchange.ask("GET", f"/{how}", scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-unreachable"


def test_an_upload_that_nobody_reads_is_interrupted(server: SlowServer, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(32 << 20))
    with (
        RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({})) as exchange,
        pytest.raises(TransientFailure),
    ):
        body = FileRange(tmp_path / "large", 0, 32 << 20)
        exchange.ask("PATCH", "/unread", scopes=PULL, limit=100, body=body, once=True)


def test_the_answer_to_an_upload_may_take_longer_and_not_for_ever(
    server: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "UPLOAD_ANSWER", 1.0)
    exchange = RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({}))
    with exchange, pytest.raises(TransientFailure, match="no answer within 1 s"):
        exchange.ask("PUT", "/interim", scopes=PULL, limit=100, body=b"x", once=True)


def test_a_token_server_that_is_slow_ends_too(server: SlowServer) -> None:
    challenge = f'Bearer realm="{server.url}/headers",service="it"'
    server.serve = lambda _: head("401 Unauthorized", WWW_Authenticate=challenge)
    exchange = RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({}))
    with exchange, pytest.raises(EnvironmentLacking, match="no answer within") as caught:
        exchange.ask("GET", "/v2/", scopes=PULL, limit=100)
    assert caught.value.code == "registry-unreachable"


def test_on_a_slow_line_every_mirror_is_left_and_then_one_is_given_its_time(server: SlowServer, store: Store) -> None:
    network = Network(timeout=3, backoff=0.001, minrate=2000, attempts=3)
    get(store, f"{server.url}/steady/a", f"{server.url}/steady/b", network=network)
    assert store.blob(DIGEST).read_bytes() == CONTENT
    assert server.asked == {"/steady/a": 2, "/steady/b": 1}


def test_what_came_before_a_host_was_left_is_kept(server: SlowServer, store: Store) -> None:
    with pytest.raises(EnvironmentLacking):  # In less time nothing may have come yet, on a busy machine.
        get(store, f"{server.url}/stall", network=Network(timeout=2, backoff=0.001, attempts=1))
    partial = store.metadata / "partial" / DIGEST.hex
    assert partial.read_bytes() == CONTENT[: len(CONTENT) // 2]


# --- a server that is wrong for a moment -----------------------------------------------------------

WRONG = {
    "404": head("404 Not Found"),
    "500": head("500 Internal Server Error"),
    "503": head("503 Service Unavailable"),
    "507": head("507 Insufficient Storage"),
    "flipped": head("200 OK", bytes([CONTENT[0] ^ 1]) + CONTENT[1:]),
    "portal": head("200 OK", PAGE, Content_Type="text/html"),
    "portal-redirect": head("302 Found", Location="ftp://portal.test/"),
    "short": head("200 OK", CONTENT[:100]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_once_is_asked_for_again_at_a_single_place(server: SlowServer, store: Store, wrong: str) -> None:
    server.serve = server.once(WRONG[wrong])
    get(store, f"{server.url}/x", network=Network(timeout=10, backoff=0.001, attempts=3))
    assert server.asked["/x"] == 2
    assert store.blob(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_at_one_mirror_is_asked_of_the_next_before_it_is_asked_again(
    server: SlowServer, store: Store, wrong: str
) -> None:
    server.serve = lambda path: WRONG[wrong] if path == "/x" else head("200 OK", CONTENT)
    get(store, f"{server.url}/x", f"{server.url}/y", network=Network(timeout=60, backoff=0.001))
    assert server.asked == {"/x": 1, "/y": 1}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("404", "download-missing"),
        ("flipped", "download-mismatch"),
        ("portal", "network-unreachable"),  # shorter than what was promised, as a transfer that broke off
        ("portal-redirect", "redirect-refused"),
        ("500", "network-unreachable"),
    ],
)
def test_what_stays_wrong_is_final(server: SlowServer, store: Store, wrong: str, code: str) -> None:
    server.serve = lambda _: WRONG[wrong]
    with pytest.raises((EnvironmentLacking, VerificationError)) as caught:
        get(store, f"{server.url}/x", network=Network(timeout=10, backoff=0.001, attempts=4))
    assert caught.value.code == code
    assert server.asked["/x"] == (4 if code == "network-unreachable" else 2)


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "451 Unavailable"])
def test_a_refusal_is_final_at_once(server: SlowServer, store: Store, status: str) -> None:
    server.serve = lambda _: head(status)
    with pytest.raises(EnvironmentLacking):
        get(store, f"{server.url}/x", network=Network(timeout=10, backoff=0.001))
    assert server.asked["/x"] == 1


# --- what servers write into their heads -----------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 5000 + b"\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes " + b"9" * 5000 + b"-\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 X\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://" + b"a" * 70 + b"/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 \xff\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X-Pad: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_no_head_of_an_answer_is_an_internal_error(server: SlowServer, store: Store, answer: bytes) -> None:
    server.serve = lambda _: answer
    with pytest.raises((EnvironmentLacking, VerificationError)):
        get(store, f"{server.url}/x")
    with pytest.raises((EnvironmentLacking, VerificationError)):
        fetch_document([f"{server.url}/x"], limit=100, network=NETWORK)
    with RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({})) as exchange:
        try:
            exchange.ask("GET", "/x", scopes=PULL, limit=100)
        except (EnvironmentLacking, VerificationError) as error:
            assert error.code in {"registry-unreachable", "registry-failing", "registry-busy", "redirect-refused"}


@pytest.mark.parametrize(
    "url", [f"http://{'a' * 64}/x", "http://[/", "http://a:99999/", "http://a\u2100b/", "gopher://x/"]
)
def test_a_url_that_is_none_is_no_internal_error(store: Store, url: str) -> None:
    with pytest.raises(EnvironmentLacking) as caught:
        get(store, url)
    assert caught.value.code == "network-unreachable"


@pytest.mark.parametrize("label", ["gzip", "x-gzip"])
def test_a_compressed_file_that_is_labelled_as_encoded_is_read_as_it_is(
    server: SlowServer, store: Store, label: str
) -> None:
    server.serve = lambda _: head("200 OK", CONTENT, Content_Encoding=label)
    get(store, f"{server.url}/primary.xml.gz")
    assert store.blob(DIGEST).read_bytes() == CONTENT
    packed = gzip.compress(CONTENT)
    server.serve = lambda _: head("200 OK", packed, Content_Encoding=label)
    assert fetch_document([f"{server.url}/list.gz"], limit=1 << 20, network=NETWORK) == packed
    with pytest.raises(EnvironmentLacking, match="Content-Encoding"):
        fetch_document([f"{server.url}/repomd.xml"], limit=1 << 20, network=NETWORK)


# --- the watch -------------------------------------------------------------------------------------

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
