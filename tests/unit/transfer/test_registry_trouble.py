"""What a client does where a registry fails, is not there, or asks for patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.transfer import CredentialStore, RegistryClient, TransientFailure
from pipeline.transfer import retry as patience_module
from pipeline.transfer.url_stream import SourceFailed
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry
from tests.support.registry_speaker import BLOB, NETWORK, PULL, PUSH, Speaker

pytestmark = pytest.mark.long  # They wait; others compute meanwhile.


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
        while not (exchange._pace._free or first.done()):  # It has been asked to wait.
            time.sleep(0.01)
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
