"""Repositories that want to know who asks: client certificates, passwords, proxies, and where secrets stand."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, RelbuildError
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess, SecretReference
from pipeline.progress import QUIET
from pipeline.repos import OpenRepository, fetch_packages, load_keys, metadata_file, open_repositories
from pipeline.repos.repository_access import read_secret, repository_network
from pipeline.store import Store
from pipeline.transfer import Network, fetch_document, find_client_certificate
from pipeline.transfer.server_access import ServerAccess
from tests.support.authority import DAY, Authority
from tests.support.guarded_server import guarded_server
from tests.support.patience import HUNG
from tests.support.rpmmd import Rpm, write_repository
from tests.support.slow_server import SlowServer, head

SECRET = "pA55w0rd-canary"
NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "good")


def repository(url: str, **access: object) -> PackageRepository:
    return PackageRepository("r", baseurls=(url,), access=RepositoryAccess(**access))  # type: ignore[arg-type]


def opened(
    store: Store, one: PackageRepository, *, environment: dict[str, str] | None = None, network: Network = NETWORK
) -> OpenRepository:
    platform = Platform("p", (one,))
    variables = environment or {}
    (found,) = open_repositories(platform, "x86_64", variables=variables, store=store, network=network, clock=time.time)
    return found


def refusal(act: Callable[[], object]) -> RelbuildError:
    with pytest.raises(RelbuildError) as caught:
        act()
    assert SECRET not in f"{caught.value!r}{caught.value}{caught.value.problems!r}"
    return caught.value


def test_a_client_certificate_opens_metadata_and_packages_and_keys(
    store: Store, tmp_path: Path, authority: Authority
) -> None:
    write_repository(tmp_path / "r", (Rpm("a"),))
    (tmp_path / "r/a.rpm").write_bytes(b"package")
    (tmp_path / "r/KEY").write_bytes(b"no key")
    certificate, _ = authority.issue("client", folder=tmp_path / "entitlement")
    server = authority.issue("server")
    with guarded_server(tmp_path / "r", certificate=server, clients=authority.certificate) as running:
        one = repository(running.url, sslcacert=str(authority.certificate), sslclientcert=str(certificate))
        found = opened(store, one)
        assert metadata_file(found, "primary", store=store) is not None
        package = Package(Nevra("a", 0, "1", "1", "noarch"), Digest.of(b"package"), 7, "r", "a.rpm", 1, "", 7)
        fetch_packages([package], [found], store=store, progress=QUIET)
        assert store.has(package.checksum)
        keyed = Platform("p", (replace(one, keys=(f"{running.url}/KEY",)),))
        error = refusal(lambda: load_keys(keyed, "x86_64", variables={}, store=store, network=NETWORK))
        assert error.code == "key-malformed"  # it was read
        plain = repository(running.url)
        assert "certificate verify failed" in str(refusal(lambda: opened(store, plain)))


def test_a_certificate_of_another_version_is_malformed(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("client", folder=tmp_path)
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    certificate.write_text(ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)))
    with pytest.raises(EnvironmentLacking) as caught:
        find_client_certificate(str(certificate), str(key), now=None)
    assert caught.value.code == "client-certificate-malformed"


def test_missing_wrong_and_expired_certificates_are_different_errors(
    store: Store, tmp_path: Path, authority: Authority
) -> None:
    write_repository(tmp_path / "r", (Rpm("a"),))
    stranger, _ = Authority(tmp_path / "other", "other").issue("client")
    old, _ = authority.issue("old", folder=tmp_path, begins=-9 * DAY, ends=-DAY)
    early, _ = authority.issue("early", folder=tmp_path, begins=DAY)
    good, _ = authority.issue("client", folder=tmp_path)
    _, others_key = authority.issue("another", folder=tmp_path)
    trust = str(authority.certificate)
    with guarded_server(
        tmp_path / "r", certificate=authority.issue("server"), clients=authority.certificate
    ) as running:

        def code(**access: object) -> tuple[str, str]:
            error = refusal(lambda: opened(store, repository(running.url, sslcacert=trust, **access)))
            return error.code, str(error.problems[0].hint)

        assert code() == (
            "client-certificate-demanded",
            "name a client certificate for the repository: sslclientcert and sslclientkey",
        )
        found, hint = code(sslclientcert=str(stranger))
        assert (found, str(stranger) in hint) == ("client-certificate-refused", True)
        assert code(sslclientcert=str(old))[0] == "client-certificate-expired"
        assert code(sslclientcert=str(early))[0] == "client-certificate-expired"
        assert code(sslclientcert=str(tmp_path / "none.pem"))[0] == "client-certificate-missing"
        assert code(sslclientcert=str(good), sslclientkey=str(tmp_path / "none"))[0] == "client-certificate-missing"
        assert code(sslclientcert=str(good), sslclientkey=str(others_key))[0] == "client-certificate-malformed"
        assert code(sslclientcert=trust, sslclientkey=trust)[0] == "client-certificate-malformed"
        assert code(sslclientkey=trust)[0] == "access-incomplete"
        assert code(sslclientcert="relative.pem")[0] == "access-incomplete"


@pytest.mark.parametrize(
    ("status", "title", "code"),
    [
        ("400 Bad Request", "400 No required SSL certificate was sent", "client-certificate-demanded"),
        ("400 Bad Request", "Sign on here", "network-unreachable"),
        ("401 Unauthorized", "Sign on here", "credentials-demanded"),
        ("403 Forbidden", "Sign on here", "access-refused"),
        ("407 Proxy Authentication Required", "Sign on here", "proxy-refused"),
    ],
)
def test_what_a_server_refuses_is_said(server: SlowServer, status: str, title: str, code: str) -> None:
    page = f"<html>\r\n<head><title>{title}</title></head></html>".encode()
    server.serve = lambda _: head(status, page)
    error = refusal(lambda: fetch_document([f"{server.url}/x"], limit=10, network=NETWORK))
    assert error.code == code
    assert (title in str(error)) == (code == "client-certificate-demanded")


def test_the_newest_valid_pair_of_a_folder_of_entitlements_is_shown(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "entitlement"
    authority.issue("1-old", folder=folder, begins=-9 * DAY, ends=-DAY)
    authority.issue("2-good", folder=folder, begins=-8 * DAY)
    newest, key = authority.issue("3-newest", folder=folder, begins=-2 * DAY)
    authority.issue("4-early", folder=folder, begins=DAY)
    authority.issue("5-no-key", folder=folder, begins=-DAY)[1].unlink()
    (folder / "6.pem").write_text("no certificate")
    found = find_client_certificate(f"{folder}/*.pem", "", now=time.time())
    assert (found.certificate, found.key) == (newest, key)
    assert find_client_certificate(f"{folder}/*.pem", f"{folder}/*-key.pem", now=time.time()) == found
    for text, code in (
        (f"{folder}/1*.pem", "client-certificate-expired"),
        (f"{folder}/x*", "client-certificate-missing"),
    ):
        assert refusal(lambda text=text: find_client_certificate(text, "", now=time.time())).code == code  # type: ignore[misc]
    whole, _ = authority.issue("whole", folder=tmp_path, key_file="{}.key")
    whole.write_bytes(whole.read_bytes() + (tmp_path / "whole.key").read_bytes())
    assert find_client_certificate(str(whole), "", now=None).key == whole


def test_a_password_goes_to_the_hosts_of_the_definition_and_no_other(store: Store, tmp_path: Path) -> None:
    write_repository(tmp_path / "r", (Rpm("a"),))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "vendor").write_text(SECRET + "\n")
    environment = {"RELBUILD_SECRETS": str(secrets), "RELBUILD_SECRET_USER": "me"}
    user, password = SecretReference(environment="RELBUILD_SECRET_USER"), SecretReference(file="vendor")
    with (
        guarded_server(tmp_path / "r") as elsewhere,
        guarded_server(tmp_path / "r", login=f"me:{SECRET}") as running,
        guarded_server(tmp_path / "r", login=f"me:{SECRET}", moved_to=elsewhere.url) as moved,
    ):
        found = opened(store, repository(running.url, username=user, password=password), environment=environment)
        assert metadata_file(found, "primary", store=store) is not None
        assert SECRET not in repr(found)
        opened(store, repository(moved.url, username="me", password=password), environment=environment)
        assert elsewhere.headers and all("Authorization" not in one for one in elsewhere.headers.values())
        assert refusal(lambda: opened(store, repository(running.url))).code == "credentials-demanded"
        (secrets / "vendor").write_text("wrong")
        one = repository(running.url, username="me", password=password)
        assert refusal(lambda: opened(store, one, environment=environment)).code == "credentials-refused"
        listed = tmp_path / "list"
        listed.write_text(f"{elsewhere.url}/\n")
        elsewhere.headers.clear()
        by_list = replace(one, baseurls=(), mirrorlist=listed.as_uri())
        opened(store, by_list, environment=environment)
        assert elsewhere.headers and all("Authorization" not in found for found in elsewhere.headers.values())
    for path in store.root.rglob("*"):
        assert SECRET not in path.name and not (path.is_file() and SECRET.encode() in path.read_bytes())


def test_a_proxy_by_tls_is_known_by_the_authorities_that_are_trusted_and_is_shown_no_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    asked = tmp_path / "http:/vendor.test"  # a proxy is sent whole URLs
    asked.mkdir(parents=True)
    (asked / "x").write_bytes(b"content")
    one = find_client_certificate(str(authority.issue("client", folder=tmp_path)[0]), "", now=None)
    server = authority.issue("server")
    with guarded_server(tmp_path, certificate=server) as proxy:
        for network in (
            replace(NETWORK, http_proxy=proxy.url, ca_file=authority.certificate),
            replace(NETWORK, access=ServerAccess(proxy=proxy.url, ca_file=authority.certificate)),
        ):
            assert fetch_document(["http://vendor.test/x"], limit=10, network=network) == b"content"
        unknown = replace(NETWORK, http_proxy=proxy.url)
        error = refusal(lambda: fetch_document(["http://vendor.test/x"], limit=10, network=unknown))
        assert "certificate verify failed" in str(error)
    with guarded_server(tmp_path, certificate=server, clients=authority.certificate) as proxy:
        access = ServerAccess(proxy=proxy.url, ca_file=authority.certificate, certificate=one)
        refusal(lambda: fetch_document(["http://vendor.test/x"], limit=10, network=replace(NETWORK, access=access)))
        assert proxy.headers == {}


def test_a_proxy_of_a_repository_is_used_with_its_password(store: Store, tmp_path: Path, server: SlowServer) -> None:
    one = repository(
        "http://vendor.test/os",
        proxy=server.url,
        proxy_username="me",
        proxy_password=SecretReference(environment="RELBUILD_SECRET_P"),
    )
    network = repository_network(one, NETWORK, {"RELBUILD_SECRET_P": SECRET}, now=None)
    server.serve = lambda _: head("200 OK", b"content")
    assert fetch_document(["http://vendor.test/x"], limit=10, network=network) == b"content"
    assert server.asked["http://vendor.test/x"] == 1
    assert SECRET not in repr(network)
    server.serve = lambda _: head("407 Proxy Authentication Required")
    assert refusal(lambda: fetch_document(["https://vendor.test/x"], limit=10, network=network)).code == "proxy-refused"
    for access in ({"proxy": "socks5://h:1"}, {"proxy_username": "me"}):
        assert (
            refusal(lambda access=access: opened(store, repository("http://x", **access))).code == "access-incomplete"
        )  # type: ignore[misc]


def test_a_secret_is_one_line_of_a_file_of_the_folder_of_secrets(tmp_path: Path) -> None:
    secrets, outside = tmp_path / "relbuild/secrets", tmp_path / "outside"
    secrets.mkdir(parents=True)
    outside.write_text(SECRET)
    (secrets / "good").write_text(f"{SECRET}\r\n")
    (secrets / "lines").write_text("-----BEGIN KEY-----\nAAAA\n")
    (secrets / "empty").write_text("")
    (secrets / "large").write_text("a" * 5000)
    (secrets / "binary").write_bytes(b"\xff\xfe")
    (secrets / "link").symlink_to(outside)
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere", "TOKEN": SECRET}
    assert read_secret(SecretReference(file="good"), environment, "r") == SECRET
    for name in ("lines", "empty", "large", "binary", "link", "none"):
        error = refusal(lambda name=name: read_secret(SecretReference(file=name), environment, "r"))  # type: ignore[misc]
        assert isinstance(error, EnvironmentLacking) and error.code == "secret-unreadable"
    for name in ("TOKEN", "RELBUILD_SECRET_X"):
        error = refusal(lambda name=name: read_secret(SecretReference(environment=name), environment, "r"))  # type: ignore[misc]
        assert error.code == "secret-unreadable"


def test_offline_needs_neither_certificates_nor_secrets(store: Store, tmp_path: Path) -> None:
    url = write_repository(tmp_path / "r", (Rpm("a"),))
    one = repository(url, sslclientcert="/nowhere.pem", password=SecretReference(file="none"), username="me")
    assert refusal(lambda: opened(store, one)).code == "client-certificate-missing"
    (found,) = open_repositories(Platform("p", (one,)), "x86_64", variables={}, store=store, offline=True)
    assert found.repomd


def test_variables_of_the_platform_and_the_home_folder_stand_in_paths(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("client", folder=tmp_path)
    one = replace(repository("https://x", sslclientcert="~/$name.pem", sslclientkey="~/$name-key.pem"))
    platform = Platform("p", (one,), variables=(("name", "client"),))
    with pytest.raises(EnvironmentLacking) as caught:
        open_repositories(
            platform, "x86_64", variables={"HOME": str(tmp_path)}, store=Store.open(tmp_path / "s"),
            network=NETWORK, clock=(datetime.datetime.now(datetime.UTC) + 90 * DAY).timestamp,
        )  # fmt: skip
    assert caught.value.code == "client-certificate-expired" and str(certificate) in str(caught.value)
    assert key.exists()
    with pytest.raises(RecipeError):
        repository_network(one, NETWORK, {}, now=None)  # no HOME
