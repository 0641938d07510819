"""Proxies that the environment names: which requests go through one, and which names are refused."""

from __future__ import annotations

import httpx
import pytest

from pipeline.errors import RecipeError, UsageError
from pipeline.transfer import Network, fetch_document
from pipeline.transfer.server_access import ServerAccess
from tests.support.misbehaving_server import CONTENT, MisbehavingServer
from tests.support.patience import HUNG


def test_proxies_come_from_the_variables_that_are_passed_in() -> None:
    network = Network.of({"https_proxy": "http://proxy:1", "HTTP_PROXY": "http://cgi:2", "NO_PROXY": "inside, .near"})
    assert (network.https_proxy, network.http_proxy) == ("http://proxy:1", None)
    assert network.no_proxy == ("inside", ".near")


@pytest.mark.parametrize("proxy", ["http://[v1.a]", "http://1.2.3.999", f"http://a{chr(0x2603) * 32}.test"])
def test_a_proxy_that_only_the_http_library_refuses_is_an_error_with_a_code(proxy: str) -> None:
    with pytest.raises(UsageError) as caught, Network.of({"https_proxy": proxy}).client():
        pass
    assert (caught.value.code, caught.value.problems[0].place) == ("network-variable", "https_proxy")
    with pytest.raises(RecipeError) as refused, Network(access=ServerAccess(proxy=proxy)).client():
        pass
    assert refused.value.code == "access-incomplete"


def test_hosts_without_a_proxy_may_be_addresses_and_nonsense() -> None:
    network = Network.of({"http_proxy": "http://proxy:1", "no_proxy": "::1,[::2],fe80::/10,1.2.3.999,10.0.0.0/8,a:b:c"})
    with network.client() as client:
        assert client._transport_for_url(httpx.URL("http://[::1]:80/")) is client._transport
        assert client._transport_for_url(httpx.URL("http://[::2]/")) is client._transport
        assert client._transport_for_url(httpx.URL("http://[::3]/")) is not client._transport


def test_plain_requests_go_through_the_proxy(misbehaving: MisbehavingServer) -> None:
    through = Network(http_proxy=misbehaving.url, timeout=HUNG)
    assert fetch_document(["http://elsewhere.invalid/good"], limit=1 << 20, network=through) == CONTENT
    assert misbehaving.requests[0][1]["host"] == "elsewhere.invalid"
    direct = Network(http_proxy="http://127.0.0.1:1", no_proxy=("127.0.0.1",), timeout=HUNG, attempts=1)
    assert fetch_document([f"{misbehaving.url}/good"], limit=1 << 20, network=direct) == CONTENT
