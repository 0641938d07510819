"""An unchanged publication to a registry with TLS and a login is recognised; another login or certificate is not."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import foreign_programs
from tests.support.opened_registry import htpasswd, login
from tests.support.repeated_publisher import DENIED, VARIABLES, RepeatedPublisher
from tests.support.tokens import Identity, TokenServer, token_server


@dataclass
class Guarded:
    """A publisher to docker-registry, which serves TLS and asks for a login: by itself, or by a token server."""

    publisher: RepeatedPublisher
    folder: Path
    host: str
    tokens: TokenServer | None

    @property
    def tags(self) -> Path:
        """The registry's folder of the product's tags."""
        return self.folder / "registry/data/docker/registry/v2/repositories/ns/small/_manifests/tags"

    def log_in(self, password: str) -> None:
        login(self.folder / "login", self.host, password=password)

    def compared(self) -> str:
        """Publish in the ordinary way; return what the comparison before it told."""
        before = len(self.publisher.ordinary)
        _, _, said = self.publisher.publish("--progress", "plain")
        assert len(self.publisher.ordinary) == before + 1, said
        return next(line for line in said.splitlines() if "compare" in line)


@contextlib.contextmanager
def _authorization(
    kind: str, folder: Path, tls: tuple[Path, Path]
) -> Iterator[tuple[dict[str, object], TokenServer | None]]:
    """The registry's configuration of logins, and its token server."""
    if kind == "htpasswd":
        yield {"htpasswd": {"realm": "it", "path": str(htpasswd(folder, "secret"))}}, None
        return
    with token_server(tls) as tokens:
        bundle, _ = tokens.identity.write(folder / "tokens")
        guard = {"realm": tokens.realm, "service": "registry", "issuer": "it", "rootcertbundle": str(bundle)}
        yield {"token": guard}, tokens


@pytest.fixture(params=["htpasswd", "token"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """It has published twice: the second publication changed nothing."""
    certificate, key = Identity.make().write(tmp_path / "tls")
    tls = {"certificate": str(certificate), "key": str(key)}
    with (
        _authorization(request.param, tmp_path, (certificate, key)) as (guard, tokens),
        foreign_programs.docker_registry(tmp_path / "registry", auth=guard, tls=tls) as host,
    ):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "login/auth.json"))
        if tokens is not None:
            monkeypatch.setenv("RELBUILD_TOKEN_SERVERS", f"{host}={tokens.host}")
        made = Guarded(RepeatedPublisher(tmp_path / "all", f"registry://{host}/ns"), tmp_path, host, tokens)
        made.log_in("secret")
        with made.publisher.counting():
            made.publisher.build()
            made.publisher.publish_twice()
            yield made


def test_it_is_asked_again_over_tls_with_the_login_of_the_ordinary_way(guarded: Guarded) -> None:
    publisher, tokens = guarded.publisher, guarded.tokens
    if tokens is not None:
        tokens.asked.clear()
    status, answer, said = publisher.publish()
    assert (status, len(publisher.ordinary)) == (0, 2), said
    assert answer["requests"] and not answer["moved"]
    if tokens is not None:
        scopes = {scope for asked in tokens.asked for scope in asked}
        assert scopes == {"repository:ns/small:pull,push"}


def test_what_is_missing_in_the_registry_is_put_there(guarded: Guarded) -> None:
    assert guarded.publisher.recognised()
    shutil.rmtree(guarded.tags / "latest")
    assert "/ns: changed, " in guarded.compared()
    assert (guarded.tags / "latest").is_dir()


def test_who_may_no_longer_log_in_is_refused_by_the_ordinary_way(guarded: Guarded) -> None:
    assert guarded.publisher.recognised()
    guarded.log_in("guess")
    said = guarded.compared()
    assert "not compared: " in said and "changed" not in said
    status, _, said = guarded.publisher.publish()
    assert status == DENIED and "registry-denied" in said
    guarded.log_in("secret")
    assert guarded.publisher.recognised()


def test_a_registry_whose_certificate_is_not_trusted_any_more_is_not_believed(guarded: Guarded) -> None:
    assert guarded.publisher.recognised()
    trusted = guarded.folder / "tls/it.crt"
    before = trusted.read_bytes()
    Identity.make().write(guarded.folder / "tls")  # At the same place, so that the environment is the same.
    assert "not compared: " in guarded.compared()
    status, _, said = guarded.publisher.publish()
    assert status == DENIED and "CERTIFICATE_VERIFY_FAILED" in said
    trusted.write_bytes(before)
    assert guarded.publisher.recognised()


@pytest.mark.parametrize("guarded", ["token"], indirect=True)
def test_a_token_server_that_refuses_is_named(guarded: Guarded) -> None:
    assert guarded.tokens is not None and guarded.publisher.recognised()
    guarded.tokens.password = "another"
    assert "not compared: the token server answered with status 401" in guarded.compared()


def test_what_is_remembered_has_no_login(guarded: Guarded) -> None:
    kept = (path for path in (guarded.publisher.folder / "store/results").rglob("*") if path.is_file())
    texts = [path.read_bytes() for path in kept]
    auth = json.loads((guarded.folder / "login/auth.json").read_text())["auths"][guarded.host]["auth"]
    assert any(b'"settled_until"' in text for text in texts)
    assert not any(auth.encode() in text or b"eyJ" in text for text in texts)
