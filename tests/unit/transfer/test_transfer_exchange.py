"""Requests to a registry: who is shown credentials, what is repeated, what is counted."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.errors import EnvironmentLacking, RelbuildError, VerificationError
from pipeline.transfer import (
    CredentialStore,
    FileRange,
    Network,
    RegistryClient,
    Scope,
    TransientFailure,
)
from pipeline.transfer import retry as patience_module
from pipeline.transfer.url_stream import SourceFailed
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry

pytestmark = pytest.mark.long  # They wait; others compute meanwhile.

PULL = (Scope.repository("app", "pull"),)
PUSH = (Scope.repository("app", "pull", "push"),)
NETWORK = Network(timeout=5.0, backoff=0.001, attempts=3)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        running.held("app").blobs["sha256:" + "a" * 64] = b"0123456789" * 1000
        yield running


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """Another host: a token server, or where blobs are stored."""
    with fake_registry() as running:
        yield running


BLOB = f"/v2/app/blobs/sha256:{'a' * 64}"


class Speaker:
    """Makes exchanges whose person has logged in as user:secret at the hosts named."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._file = folder / "auth.json"
        self._stack = stack

    def __call__(
        self,
        registry: FakeRegistry,
        entry: dict[str, str] | None = None,
        network: Network = NETWORK,
        token_servers: str = "",
    ) -> RegistryClient:
        self._file.write_text(json.dumps({"auths": {registry.host: entry} if entry else {}}))
        credential_store = CredentialStore.of(
            {"REGISTRY_AUTH_FILE": str(self._file), "RELBUILD_TOKEN_SERVERS": token_servers}
        )
        return self._stack.enter_context(
            RegistryClient(f"http://{registry.host}", network=network, credential_store=credential_store)
        )


@pytest.fixture
def speak(tmp_path: Path) -> Iterator[Speaker]:
    with ExitStack() as stack:
        yield Speaker(tmp_path, stack)


LOGIN = {"auth": base64.b64encode(b"user:secret").decode()}
BASIC = "Basic " + LOGIN["auth"]


def basic(request: Request) -> bool:
    """A registry that wants Basic."""
    if request.headers.get("Authorization") == BASIC:
        return True
    request.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="it"')
    return False


class Tokens:
    """A token server on `host`, and a registry that wants what it issues."""

    def __init__(self, registry: FakeRegistry, host: FakeRegistry, *, lasts: int = 300, accept: bool = True) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.issued: dict[str, set[str]] = {}
        self.lasts = lasts
        self.accept = accept
        self.realm = f"http://{host.host}/token"
        self.known = f"{registry.host}={host.host}"
        registry.guard = self.check
        host.faults = [Fault("GET", r"^/token", self.issue, 999), Fault("POST", r"^/token", self.issue, 999)]

    def issue(self, request: Request) -> None:
        text = request.read().decode() if request.command == "POST" else urlsplit(request.path).query
        query = parse_qs(text)
        self.asked.append((request.command, query, request.headers.get("Authorization")))
        if not self.accept:
            request.refuse(401, "UNAUTHORIZED")
            return
        token = f"token-{len(self.asked)}"
        self.issued[token] = {scope for word in query["scope"] for scope in word.split()}
        body = {"token": token} if request.command == "GET" else {"access_token": token}
        request.answer(200, json.dumps({**body, "expires_in": self.lasts}).encode())

    def check(self, request: Request) -> bool:
        needed = "repository:app:pull" if request.command in {"GET", "HEAD"} else "repository:app:pull,push"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if needed in self.issued.get(token, set()):
            return True
        challenge = f'Bearer realm="{self.realm}",service="it",scope="{needed}"'
        request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
        return False


# --- logging in ------------------------------------------------------------------------------------


def test_nobody_is_shown_a_password_before_it_is_asked_for(registry: FakeRegistry, speak: Speaker) -> None:
    exchange = speak(registry, LOGIN)
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert "authorization" not in registry.requests[0][2]
    registry.guard = basic
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert [one.get("authorization") for _, _, one in registry.requests] == [None, None, BASIC, BASIC]


@pytest.mark.parametrize("entry", [None, {"auth": base64.b64encode(b"user:wrong").decode()}])
def test_a_refusal_says_where_credentials_were_looked_for(
    registry: FakeRegistry, speak: Speaker, entry: dict[str, str] | None
) -> None:
    registry.guard = basic
    exchange = speak(registry, entry)
    with pytest.raises(EnvironmentLacking, match=r"auth\.json") as caught:
        for _ in range(2):
            answer = exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
            assert answer.status == 401
    assert caught.value.code == "registry-denied"
    assert "wrong" not in str(caught.value)


def test_a_token_is_asked_for_once_by_scope_and_used_until_it_expires(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    tokens = Tokens(registry, other)
    exchange = speak(registry, LOGIN, token_servers=tokens.known)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status, range(30))) == {200}
    assert exchange.ask("POST", "/v2/app/blobs/uploads/", scopes=PUSH, limit=100).status == 202
    assert [query["scope"] for _, query, _ in tokens.asked] == [["repository:app:pull"], ["repository:app:pull,push"]]
    assert tokens.asked[0][1]["service"] == ["it"]
    assert tokens.asked[0][2] == BASIC
    assert all(headers.get("authorization") != BASIC for _, _, headers in registry.requests)


def test_a_token_that_expired_is_renewed_before_it_is_used(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    tokens = Tokens(registry, other, lasts=1)
    exchange = speak(registry, LOGIN, token_servers=tokens.known)
    exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    time.sleep(1)
    before = len(registry.requests)
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert (len(tokens.asked), len(registry.requests) - before) == (2, 1)


def test_a_token_that_the_registry_does_not_accept_any_more_is_asked_for_anew(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    tokens = Tokens(registry, other)
    exchange = speak(registry, LOGIN, token_servers=tokens.known)
    exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    tokens.issued.clear()
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert len(tokens.asked) == 2


def test_a_body_is_sent_again_with_the_new_token(registry: FakeRegistry, other: FakeRegistry, speak: Speaker) -> None:
    tokens = Tokens(registry, other)
    exchange = speak(registry, LOGIN, token_servers=tokens.known)
    start = exchange.ask("POST", "/v2/app/blobs/uploads/", scopes=PUSH, limit=100)
    tokens.issued.clear()
    answer = exchange.ask("PATCH", start.location(), scopes=PUSH, limit=100, body=b"x" * 100_000, once=True)
    assert (answer.status, answer.header("range")) == (202, "0-99999")


def test_an_identity_token_is_exchanged_by_oauth2(registry: FakeRegistry, other: FakeRegistry, speak: Speaker) -> None:
    tokens = Tokens(registry, other)
    exchange = speak(registry, {"identitytoken": "of the login"}, token_servers=tokens.known)
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    ((method, form, authorization),) = tokens.asked
    assert (method, form["grant_type"], form["refresh_token"]) == ("POST", ["refresh_token"], ["of the login"])
    assert authorization is None


def test_a_token_server_that_refuses_is_named(registry: FakeRegistry, other: FakeRegistry, speak: Speaker) -> None:
    tokens = Tokens(registry, other, accept=False)
    with pytest.raises(EnvironmentLacking, match="token server") as caught:
        speak(registry, LOGIN, token_servers=tokens.known).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-denied"


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "/token", "http://user:secret@host/", "gopher://host/"])
def test_no_password_goes_to_a_realm_that_is_no_address(registry: FakeRegistry, speak: Speaker, realm: str) -> None:
    registry.guard = lambda request: request.refuse(401, "", WWW_Authenticate=f'Bearer realm="{realm}"') is not None
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry, LOGIN).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-denied"


def test_a_token_with_a_line_break_is_none(registry: FakeRegistry, other: FakeRegistry, speak: Speaker) -> None:
    tokens = Tokens(registry, other)
    body = json.dumps({"token": "a\r\nX-Evil: b"}).encode()
    other.faults = [Fault("GET", "^/token", lambda request: request.answer(200, body))]
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry, LOGIN, token_servers=tokens.known).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-token"
    assert tokens.asked == []


# --- other hosts -----------------------------------------------------------------------------------


def redirect(to: str, status: int = 307) -> Callable[[Request], None]:
    def act(request: Request) -> None:
        request.read()
        request.answer(status, Location=to)

    return act


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_to_another_host_gets_no_authorization(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker, status: int
) -> None:
    registry.guard = basic
    exchange = speak(registry, LOGIN)
    exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    other.held("app").blobs.update(registry.held("app").blobs)
    registry.faults = [Fault("GET", "/blobs/", redirect(f"http://{other.host}{BLOB}", status), 2)]
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).body == b"0123456789" * 1000
    with exchange.stream(BLOB, scopes=PULL, offset=10) as stream:
        assert stream.offset == 10
        assert b"".join(stream.pieces) == b"0123456789" * 999
    assert registry.requests[-1][2]["authorization"] == BASIC
    assert len(other.requests) == 2
    assert all("authorization" not in headers for _, _, headers in other.requests)


def test_another_port_of_the_same_host_is_another_host_and_asks_in_vain(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    registry.guard = other.guard = basic
    exchange = speak(registry, LOGIN)
    exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    answer = exchange.ask("PUT", f"http://{other.host}/v2/app/blobs/uploads/x", scopes=PUSH, limit=1000, body=b"x")
    assert answer.status == 401
    assert all("authorization" not in headers for _, _, headers in other.requests)


def test_an_upload_is_only_redirected_with_its_method(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    exchange = speak(registry)
    session = exchange.ask("POST", f"http://{other.host}/v2/app/blobs/uploads/", scopes=PUSH, limit=100).location()
    registry.faults = [Fault("PATCH", "", redirect(session, 307)), Fault("PATCH", "", redirect(session, 302))]
    assert exchange.ask("PATCH", "/v2/app/x", scopes=PUSH, limit=100, body=b"12345").header("range") == "0-4"
    assert exchange.ask("PATCH", "/v2/app/x", scopes=PUSH, limit=100, body=b"12345").status == 302


def test_redirections_end_and_lead_to_no_file(registry: FakeRegistry, speak: Speaker) -> None:
    exchange = speak(registry)
    for to in (BLOB, "file:///etc/passwd"):
        registry.faults = [Fault("GET", "/blobs/", redirect(to), 99)]
        with pytest.raises(VerificationError) as caught:
            exchange.ask("GET", BLOB, scopes=PULL, limit=100)
        assert caught.value.code == "redirect-refused"


# --- trouble ---------------------------------------------------------------------------------------


def failing(status: int, **headers: str) -> Callable[[Request], None]:
    return lambda request: request.refuse(status, "TOOMANYREQUESTS", **headers)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(registry: FakeRegistry, speak: Speaker, status: int) -> None:
    registry.faults = [Fault("GET", "/blobs/", failing(status), 2)]
    assert speak(registry).ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200


def test_a_lost_connection_is_made_again(registry: FakeRegistry, speak: Speaker) -> None:
    registry.faults = [Fault("GET", "/blobs/", Request.cut, 2)]
    exchange = speak(registry)
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert exchange.traffic.requests == (("GET", 0, 2), ("GET", 200, 1))


def test_what_must_not_be_repeated_is_not(registry: FakeRegistry, speak: Speaker) -> None:
    registry.faults = [Fault("PATCH", "", Request.cut), Fault("PATCH", "", failing(503, Retry_After="9"))]
    exchange = speak(registry)
    for pause in (None, 9.0):
        with pytest.raises(TransientFailure) as caught:
            exchange.ask("PATCH", "/v2/app/blobs/uploads/x", scopes=PUSH, limit=100, body=b"x", once=True)
        assert caught.value.pause == pause
    assert len(registry.requests) == 2


def test_retry_after_is_obeyed_by_all_threads(registry: FakeRegistry, speak: Speaker) -> None:
    asked: list[float] = []

    def limit(request: Request) -> bool:
        asked.append(time.monotonic())
        if len(asked) == 1:
            request.refuse(429, "TOOMANYREQUESTS", Retry_After="1")
            return False
        return True

    exchange = speak(registry)
    registry.guard = limit
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(exchange.ask, "HEAD", BLOB, scopes=PULL, limit=0)
        time.sleep(0.3)
        rest = [pool.submit(exchange.ask, "HEAD", BLOB, scopes=PULL, limit=0) for _ in range(3)]
        assert {one.result().status for one in (first, *rest)} == {200}
    assert len(asked) == 5
    assert min(asked[1:]) - asked[0] >= 0.99


def test_pauses_that_are_asked_for_do_not_use_up_the_attempts(registry: FakeRegistry, speak: Speaker) -> None:
    registry.faults = [Fault("GET", "/blobs/", failing(429, Retry_After="0"), 8)]
    assert speak(registry).ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    registry.faults = [Fault("GET", "/blobs/", failing(429, Retry_After="0"), 99)]
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-busy"


def test_a_server_that_asks_for_an_hour_is_not_asked_sooner(registry: FakeRegistry, speak: Speaker) -> None:
    registry.faults = [Fault("GET", "/blobs/", failing(429, Retry_After="3600"))]
    with pytest.raises(EnvironmentLacking, match="3600 seconds") as caught:
        speak(registry).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-busy"
    assert len(registry.requests) == 1
    assert patience_module.RETRY_PAUSE_MOST < 3600


def test_what_cannot_be_reached_is_named(speak: Speaker, registry: FakeRegistry) -> None:
    registry.close()
    with pytest.raises(EnvironmentLacking, match=registry.host) as caught:
        speak(registry).ask("GET", BLOB, scopes=PULL, limit=100)
    assert caught.value.code == "registry-unreachable"


def test_a_proxy_that_answers_with_an_error_is_not_called_unreachable(speak: Speaker, registry: FakeRegistry) -> None:
    registry.faults = [Fault("GET", "/blobs/", failing(502), 99)]
    with pytest.raises(EnvironmentLacking, match="is reached, but answers with an error: status 502") as caught:
        speak(registry).ask("GET", BLOB, scopes=PULL, limit=100)
    assert caught.value.code == "registry-failing"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:992)", "renew"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "SSL_CERT_FILE"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, certificate is not", "a name"),
    ],
)
def test_the_hint_for_a_certificate_is_of_what_is_wrong_with_it(text: str, hint: str) -> None:
    assert hint in str(patience_module.unreachable("host", text))


def test_plain_http_where_tls_is_expected_says_what_to_write(registry: FakeRegistry, tmp_path: Path) -> None:
    exchange = RegistryClient(
        f"https://{registry.host}", network=NETWORK, credential_store=CredentialStore.of({"HOME": str(tmp_path)})
    )
    with exchange, pytest.raises(EnvironmentLacking) as caught:
        exchange.ask("GET", BLOB, scopes=PULL, limit=100)
    assert caught.value.code == "registry-unreachable"
    assert "registry+http://" in str(caught.value)
    assert exchange.traffic.count() == 1, "no retry gives a server TLS"


def test_a_refused_connection_is_asked_again(tmp_path: Path) -> None:
    with fake_registry() as gone:
        host = gone.host
    exchange = RegistryClient(
        f"https://{host}", network=NETWORK, credential_store=CredentialStore.of({"HOME": str(tmp_path)})
    )
    with exchange, pytest.raises(EnvironmentLacking):
        exchange.ask("GET", BLOB, scopes=PULL, limit=100)
    assert exchange.traffic.count() == NETWORK.attempts > 1


def test_answers_are_bounded(registry: FakeRegistry, speak: Speaker) -> None:
    exchange = speak(registry)
    assert len(exchange.ask("GET", BLOB, scopes=PULL, limit=10_000).body) == 10_000
    with pytest.raises(VerificationError) as caught:
        exchange.ask("GET", BLOB, scopes=PULL, limit=9_999)
    assert caught.value.code == "answer-too-large"


def test_a_broken_stream_says_that_it_can_be_taken_up(registry: FakeRegistry, speak: Speaker) -> None:
    def half(request: Request) -> None:
        request.answer(200, b"0123456789" * 500, Content_Length="10000")
        request.close_connection = True

    registry.faults = [Fault("GET", "/blobs/", half)]
    with pytest.raises(SourceFailed) as caught, speak(registry).stream(BLOB, scopes=PULL) as stream:
        b"".join(stream.pieces)
    assert caught.value.again


# --- counting --------------------------------------------------------------------------------------


def test_requests_and_bytes_are_counted(registry: FakeRegistry, speak: Speaker, tmp_path: Path) -> None:
    exchange = speak(registry)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 300_000)
    session = exchange.ask("POST", "/v2/app/blobs/uploads/", scopes=PUSH, limit=100).location()
    before = exchange.traffic
    exchange.ask("PATCH", session, scopes=PUSH, limit=100, body=FileRange(path, 5, 2_500_000))
    exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    exchange.ask("HEAD", BLOB, scopes=PULL, limit=0)
    traffic = exchange.traffic - before
    assert traffic.requests == (("GET", 200, 1), ("HEAD", 200, 1), ("PATCH", 202, 1))
    assert (traffic.sent, traffic.received) == (2_500_000, 10_000)
    assert (traffic.count(), traffic.count("PATCH", "HEAD")) == (3, 2)
    (upload,) = registry.uploads.values()
    assert upload == path.read_bytes()[5:2_500_005]


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(
    registry: FakeRegistry, speak: Speaker, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")
    with pytest.raises(RelbuildError) as caught:
        speak(registry).ask("PUT", "/v2/app/x", scopes=PUSH, limit=100, body=FileRange(path, 0, 1000))
    assert caught.value.code == "file-changed"
