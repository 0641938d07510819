"""A server that is wrong is asked again after the others; what it writes into its heads is no internal error."""

from __future__ import annotations

import gzip

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import (
    CredentialStore,
    Download,
    Network,
    RegistryClient,
    Scope,
    fetch,
    fetch_document,
)
from tests.support.patience import HUNG
from tests.support.slow_server import CONTENT, PAGE, SlowServer, head

DIGEST = Digest.of(CONTENT)


NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=2)


PULL = (Scope.repository("app", "pull"),)


def get(store: Store, *urls: str, network: Network = NETWORK) -> Digest:
    (digest,) = fetch(store, [Download(urls, DIGEST, len(CONTENT), "thing")], progress=QUIET, network=network)
    return digest


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
    get(store, f"{server.url}/x", network=Network(timeout=HUNG, backoff=0.001, attempts=3))
    assert server.asked["/x"] == 2
    assert store.blob(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_at_one_mirror_is_asked_of_the_next_before_it_is_asked_again(
    server: SlowServer, store: Store, wrong: str
) -> None:
    server.serve = lambda path: WRONG[wrong] if path == "/x" else head("200 OK", CONTENT)
    get(store, f"{server.url}/x", f"{server.url}/y", network=Network(timeout=HUNG, backoff=0.001))
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
        get(store, f"{server.url}/x", network=Network(timeout=HUNG, backoff=0.001, attempts=4))
    assert caught.value.code == code
    assert server.asked["/x"] == (4 if code == "network-unreachable" else 2)


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "451 Unavailable"])
def test_a_refusal_is_final_at_once(server: SlowServer, store: Store, status: str) -> None:
    server.serve = lambda _: head(status)
    with pytest.raises(EnvironmentLacking):
        get(store, f"{server.url}/x", network=Network(timeout=HUNG, backoff=0.001))
    assert server.asked["/x"] == 1


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
