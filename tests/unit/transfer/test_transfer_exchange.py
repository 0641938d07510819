"""Requests to a registry: who is shown credentials, where they go, what is counted."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking, RelbuildError, VerificationError
from pipeline.transfer import (
    FileRange,
)
from tests.support.registry_fake import FakeRegistry, Fault, Request
from tests.support.registry_speaker import BASIC, BLOB, LOGIN, PULL, PUSH, Speaker
from tests.support.registry_tokens import Tokens

pytestmark = pytest.mark.long  # They wait; others compute meanwhile.


def basic(request: Request) -> bool:
    """A registry that wants Basic."""
    if request.headers.get("Authorization") == BASIC:
        return True
    request.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="it"')
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
