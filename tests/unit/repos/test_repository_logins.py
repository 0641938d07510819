"""Logins at repositories besides passwords: bearer tokens, netrc, Kerberos; and to whom none is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pipeline.errors import RecipeError, RelbuildError
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess, SecretReference
from pipeline.repos import OpenRepository, load_keys, open_repositories
from pipeline.store import Store
from pipeline.transfer import Network, read_netrc
from pipeline.transfer.origin_auth import OriginAuth
from tests.support.authority import Authority
from tests.support.guarded_server import guarded_server
from tests.support.patience import HUNG
from tests.support.rpmmd import Rpm, write_repository
from tests.support.slow_server import SlowServer, head

SECRET = "pA55w0rd-canary"
NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "good")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    write_repository(tmp_path / "r", (Rpm("a"),))
    return tmp_path / "r"


def repository(*urls: str, **access: object) -> PackageRepository:
    return PackageRepository("r", baseurls=urls, access=RepositoryAccess(**access))  # type: ignore[arg-type]


def opened(
    store: Store, one: PackageRepository, environment: dict[str, str] | None = None, network: Network = NETWORK
) -> OpenRepository:
    platform, variables = Platform("p", (one,)), environment or {}
    (found,) = open_repositories(platform, "x86_64", variables=variables, store=store, network=network, clock=time.time)
    return found


def refusal(act: Callable[[], object]) -> RelbuildError:
    with pytest.raises(RelbuildError) as caught:
        act()
    assert SECRET not in f"{caught.value!r}{caught.value}{caught.value.problems!r}"
    return caught.value


def is_in_store(store: Store) -> bool:
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert files
    return any(SECRET in path.name or SECRET.encode() in path.read_bytes() for path in files)


def test_a_bearer_token_is_shown_to_the_definitions_own_hosts(store: Store, served: Path) -> None:
    environment = {"RELBUILD_SECRET_T": SECRET, "RELBUILD_SECRET_W": "wrong", "RELBUILD_SECRET_M": f"{SECRET} x"}
    with guarded_server(served) as elsewhere, guarded_server(served, authorization=f"Bearer {SECRET}") as running:
        one = repository(running.url, token=SecretReference(environment="RELBUILD_SECRET_T"))
        found = opened(store, one, environment)
        assert SECRET not in f"{found!r}{found.network!r}" and not is_in_store(store)
        for name, code in (("W", "credentials-refused"), ("M", "secret-unreadable"), ("N", "secret-unreadable")):
            other = repository(running.url, token=SecretReference(environment=f"RELBUILD_SECRET_{name}"))
            assert refusal(lambda other=other: opened(store, other, environment)).code == code  # type: ignore[misc]
        listed = served / "list"
        listed.write_text(f"{elsewhere.url}/\n")
        opened(store, replace(one, baseurls=(), mirrorlist=listed.as_uri()), environment)
        assert elsewhere.headers and all("Authorization" not in one for one in elsewhere.headers.values())


def test_netrc_logs_in_at_the_machines_that_it_names(
    store: Store, served: Path, tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / ".netrc").write_text(f"machine LocalHost login me password {SECRET}\ndefault login x password y\n")
    (tmp_path / "other").write_text("default login me password pA55w0rd-canary\n")
    home, other = {"HOME": str(tmp_path)}, {"HOME": "/nowhere", "NETRC": str(tmp_path / "other")}
    network = replace(NETWORK, ca_file=authority.certificate)
    with guarded_server(served, certificate=authority.issue("server"), login=f"me:{SECRET}") as running:
        one = repository(running.url, netrc=True)
        assert SECRET not in repr(opened(store, one, home, network)) and not is_in_store(store)
        opened(store, one, {"HOME": "/nowhere", "NETRC": str(tmp_path / ".netrc")}, network)
        error = refusal(lambda: opened(store, one, other, network))
        assert (error.code, "no entry for localhost" in str(error)) == ("secret-unreadable", True)
        assert refusal(lambda: opened(store, one, {"HOME": "/nowhere"}, network)).code == "secret-unreadable"


@pytest.mark.parametrize(
    "content", [f"machine a login b password {SECRET} {SECRET} c", f"{SECRET} x\n", "\xff", " " * ((1 << 20) + 1)]
)
def test_a_netrc_file_that_cannot_be_read_is_not_quoted(tmp_path: Path, content: str) -> None:
    (tmp_path / "netrc").write_text(content, encoding="latin-1")
    error = refusal(lambda: read_netrc(tmp_path / "netrc", "repository r"))
    assert error.code == "secret-unreadable" and error.problems[0].place == "repository r"


def test_of_two_entries_for_a_machine_the_first_counts_as_with_curl(tmp_path: Path) -> None:
    entries = ("machine A.test login a password b", "machine a.test login c password d", "machine b.test login e")
    (tmp_path / "netrc").write_text("\n".join((*entries, "machine b.test login f", "default login x password y\n")))
    found = read_netrc(tmp_path / "netrc", "repository r")
    assert {machine: one.user for machine, one in found.items()} == {"a.test": "a", "b.test": "e"}


TWO = {"token": SecretReference(file="x"), "netrc": True}
NETRC, KERBEROS = {"netrc": True}, {"negotiate": True}


@pytest.mark.parametrize(
    ("url", "access", "told"),
    [
        ("https://a.test", TWO, "'token' and 'netrc' are two ways"),
        ("https://a.test", {"username": "me", **KERBEROS}, "'username' and 'negotiate' are two ways"),
        ("http://a.test", NETRC, "is for https alone"),
        ("http://a.test", KERBEROS, "is for https alone"),
        ("https://a.test", {**NETRC, "proxy": "http://evil.test:1"}, "a 'proxy' of the definition's own"),
        ("https://a.test", {**KERBEROS, "proxy": "http://evil.test:1"}, "a 'proxy' of the definition's own"),
        ("https://a.test", {**NETRC, "sslcacert": "/evil"}, "a 'sslcacert' of the definition's own"),
    ],
)
def test_no_definition_can_lead_a_login_of_the_persons_away(
    store: Store, url: str, access: dict[str, object], told: str
) -> None:
    error = refusal(lambda: opened(store, repository(url, **access)))
    assert isinstance(error, RecipeError) and error.code == "access-conflict"
    assert told in str(error) and error.problems[0].place == "repository r"


def test_who_was_sent_on_by_a_mirror_is_not_told_who_asks(store: Store, served: Path) -> None:
    """A mirror could have anything at the definition's own host asked for with the login."""
    secret = SecretReference(environment="RELBUILD_SECRET_P")
    with (
        guarded_server(served, login=f"me:{SECRET}") as own,
        guarded_server(served, moved_to=own.url) as mirror,
    ):
        listed = served / "list"
        listed.write_text(f"{mirror.url}/\n")
        (served / "own-list").write_text(f"{mirror.url}/\n")
        one = replace(
            repository(username="me", password=secret), baseurls=(f"{own.url}/elsewhere",), mirrorlist=listed.as_uri()
        )
        assert refusal(lambda: opened(store, one, {"RELBUILD_SECRET_P": SECRET})).code == "credentials-refused"
        assert list(own.headers) == ["/repodata/repomd.xml"]
        assert "Authorization" not in own.headers["/repodata/repomd.xml"]


@pytest.mark.parametrize("named", ["xn--bcher-kva.test", "bücher.test"])
@pytest.mark.parametrize("asked", ["xn--bcher-kva.test", "bücher.test"])
def test_hosts_with_other_letters_are_the_same_in_either_form(named: str, asked: str) -> None:
    login = OriginAuth([(("https", named, 443), "Bearer x")])
    for url, known in ((f"https://{asked}/a", True), (f"https://{asked}:8443/", False), ("https://other.test/", False)):
        request = httpx.Request("GET", url)
        assert next(login.auth_flow(request)).headers.get("Authorization") == ("Bearer x" if known else None)
        assert login.knows(request) is known


def test_a_key_of_another_host_is_fetched_through_the_repositorys_proxy(store: Store, server: SlowServer) -> None:
    server.serve = lambda _: head("200 OK", b"no key")
    secret = SecretReference(environment="RELBUILD_SECRET_P")
    one = repository("http://vendor.test/os", username="me", password=secret, proxy=server.url)
    platform = Platform("p", (replace(one, keys=("http://keys.test/KEY",)),))
    error = refusal(
        lambda: load_keys(platform, "x86_64", variables={"RELBUILD_SECRET_P": SECRET}, store=store, network=NETWORK)
    )
    assert error.code == "key-malformed"  # it was read
    assert server.asked["http://keys.test/KEY"] >= 1


def test_a_proxys_user_without_a_proxy_is_refused(store: Store) -> None:
    secret = SecretReference(environment="RELBUILD_SECRET_P")
    one = repository("http://vendor.test/os", proxy_username="me", proxy_password=secret)
    error = refusal(lambda: opened(store, one, {"RELBUILD_SECRET_P": SECRET}))
    assert (error.code, error.problems[0].place) == ("access-incomplete", "repository r")


def test_kerberos_that_is_not_installed_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx_gssapi", None)
    error = refusal(lambda: opened(store, repository("https://a.test", negotiate=True)))
    assert error.code == "kerberos-missing" and "relbuild[kerberos]" in str(error.problems[0].hint)
