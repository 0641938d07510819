"""Logging in to a registry: by password, certificate and token; and never without TLS because it says so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.registry_mirror import open_registry
from pipeline.mirror.protocol import Arrival
from pipeline.mirror.references import fallback_tag
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import foreign_programs
from tests.support.opened_registry import EMPTY, clients, htpasswd, login, note, opened, push
from tests.support.tiny_image import tiny
from tests.support.tokens import Identity, token_server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_basic_authentication_with_podmans_file(tmp_path: Path, store: Store) -> None:
    guard = {"htpasswd": {"realm": "it", "path": str(htpasswd(tmp_path, "secret"))}}
    with foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host:
        image = tiny(store)
        file = login(tmp_path, f"{host}/ns")
        with opened(host, "ns", REGISTRY_AUTH_FILE=file) as mirror:
            push(mirror.repository("app"), image, store)
            assert mirror.repositories() == ("app",)
        inspected = f"docker://{host}/ns/app@{Digest.of(image.manifest_bytes)}"
        clients("skopeo", "inspect", "--tls-verify=false", "--raw", inspected, REGISTRY_AUTH_FILE=file)
        for wrong in ({}, {"REGISTRY_AUTH_FILE": login(tmp_path / "wrong", host, password="guess")}):
            with opened(host, "ns", **wrong) as mirror, pytest.raises(EnvironmentLacking) as caught:
                mirror.repository("app").tags()
            assert caught.value.code == "registry-denied"
            assert f"podman login {host}" in str(caught.value)


def test_tls_with_an_own_authority(tmp_path: Path, store: Store) -> None:
    certificate, key = Identity.make().write(tmp_path / "tls")
    with foreign_programs.docker_registry(
        tmp_path / "registry", tls={"certificate": str(certificate), "key": str(key)}
    ) as host:
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            with pytest.raises(EnvironmentLacking, match="CERTIFICATE_VERIFY_FAILED") as caught:
                mirror.repository("app").tags()
            assert caught.value.code == "registry-unreachable"
        folder = tmp_path / ".config/containers/certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            push(mirror.repository("app"), tiny(store), store)
        environment = {"SSL_CERT_FILE": str(certificate)}
        with open_registry(f"registry://{host}/ns", environment=environment, progress=QUIET) as mirror:
            assert mirror.repositories() == ("app",)


def test_a_client_certificate_is_shown_to_who_asks_for_it(tmp_path: Path, store: Store) -> None:
    certificate, key = Identity.make().write(tmp_path / "tls")
    theirs, our_key = Identity.make().write(tmp_path / "client")
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(theirs)]}
    with foreign_programs.docker_registry(tmp_path / "registry", tls=tls) as host:
        folder = tmp_path / ".config/containers/certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror, pytest.raises(EnvironmentLacking):
            mirror.repository("app").tags()
        (folder / "it.cert").write_bytes(theirs.read_bytes())
        (folder / "it.key").write_bytes(our_key.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            push(mirror.repository("app"), tiny(store), store)


def test_nothing_goes_out_without_tls_because_a_registry_says_so(tmp_path: Path, store: Store) -> None:
    """A registry behind a proxy that does not know of TLS names an upload's place with http://."""
    certificate, key = Identity.make().write(tmp_path / "tls")
    tls = {"certificate": str(certificate), "key": str(key)}
    with (
        foreign_programs.reserved_port() as port,
        foreign_programs.docker_registry(tmp_path / "registry", tls=tls, host=f"http://127.0.0.1:{port}") as host,
    ):
        environment = {"SSL_CERT_FILE": str(certificate)}
        with (
            open_registry(f"registry://{host}/ns", environment=environment, progress=QUIET) as mirror,
            pytest.raises(VerificationError, match="without TLS") as caught,
        ):
            mirror.repository("app").put_blob(EMPTY, b"{}")
        assert caught.value.code == "redirect-refused"


def test_tokens_are_for_what_is_done_and_mounts_name_both_repositories(tmp_path: Path, store: Store) -> None:
    with token_server() as tokens:
        bundle, _ = tokens.identity.write(tmp_path / "tokens")
        guard = {"token": {"realm": tokens.realm, "service": "registry", "issuer": "it", "rootcertbundle": str(bundle)}}
        with foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host:
            file = login(tmp_path, host)
            image = tiny(store)
            with opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror:
                base, app = mirror.repository("base"), mirror.repository("app")
                push(base, image, store)
                assert base.tags() == ()
                assert tokens.asked == [["repository:ns/base:pull,push"]]
                (layer, *_) = image.layers
                before = mirror.traffic
                assert app.put_blob(layer.blob, store.blob(layer.blob.digest), elsewhere=["base"]) is Arrival.MOUNTED
                assert (mirror.traffic - before).sent == 0
                assert tokens.asked[-1] == ["repository:ns/app:pull,push", "repository:ns/base:pull"]
                assert mirror.repositories() == ("app", "base")
                app.put_blob(EMPTY, b"{}")
                assert app.attach(note(1, Manifest(media_types.MANIFEST, image.manifest_bytes)))
                base.remove_manifest(Digest.of(image.manifest_bytes))
                assert not base.has_manifest(Digest.of(image.manifest_bytes))
            tokens.asked.clear()
            with opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror:
                assert mirror.repository("app").tags() == (fallback_tag(Digest.of(image.manifest_bytes)),)
                assert tokens.asked == [["repository:ns/app:pull"]]
            tokens.forbidden = {"ns/base:push"}
            with (
                opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror,
                pytest.raises(EnvironmentLacking) as caught,
            ):
                mirror.repository("base").put_blob(Descriptor("a/b", Digest.of(b"new"), 3), b"new")
            assert caught.value.code == "registry-denied"
            assert "ns/base" in str(caught.value)


def test_a_token_that_expires_between_two_requests_is_renewed(tmp_path: Path, store: Store) -> None:
    with token_server() as tokens:
        bundle, _ = tokens.identity.write(tmp_path / "tokens")
        tokens.lasts = 2
        guard = {"token": {"realm": tokens.realm, "service": "registry", "issuer": "it", "rootcertbundle": str(bundle)}}
        with (
            foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host,
            opened(
                host,
                "ns",
                REGISTRY_AUTH_FILE=login(tmp_path, host),
                RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}",
            ) as mirror,
        ):
            app = mirror.repository("app")
            push(app, tiny(store), store)
            time.sleep(2.2)
            assert set(push(app, tiny(store), store)) == {Arrival.PRESENT}
            refused = sum(number for _, status, number in mirror.traffic.requests if status == 401)
            assert refused == 1
            assert len(tokens.asked) >= 2
