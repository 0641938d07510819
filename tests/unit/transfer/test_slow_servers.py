"""A server that is slow is left, whatever it does meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking
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
from tests.support.patience import HUNG
from tests.support.slow_server import CONTENT, SlowServer, head

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
    get(store, server.url.replace("127.0.0.1", "two.example") + "/good", network=Network(timeout=HUNG))
    assert store.blob(DIGEST).read_bytes() == CONTENT


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
