"""A registry says where its tokens come from, and is believed only where somebody else says so too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import EnvironmentLacking, UsageError, VerificationError
from pipeline.transfer import (
    CATALOG_SCOPE,
    CredentialStore,
    Network,
    RegistryClient,
    Scope,
)
from pipeline.transfer.challenge import Challenge
from pipeline.transfer.registry_auth import (
    TOKEN_LIFETIME_MOST,
    TOKEN_LIMIT,
    TOKENS_KEPT,
    RegistryAuth,
    TokenRequest,
)
from pipeline.transfer.token_servers import PUBLIC_TOKEN_SERVERS, TokenServers
from pipeline.urls import parse_url
from tests.support.registry_fake import FakeRegistry, Request
from tests.support.registry_speaker import BASIC, BLOB, LOGIN, PULL, Speaker
from tests.support.registry_tokens import Tokens


class Asked(list[TokenRequest]):
    """A token server that remembers what it was asked."""

    def __call__(self, wanted: TokenRequest) -> tuple[int, bytes]:
        self.append(wanted)
        return 200, b'{"token":"t"}'


def admits(registry: str, realm: str, named: str = "") -> bool:
    one, two = parse_url(registry), parse_url(realm)
    assert one is not None and two is not None
    return TokenServers.of({"RELBUILD_TOKEN_SERVERS": named}).admit(one, two)


# --- whom a password is told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("https://mirror.test", True),
        ("http://mirror.test", False),
        ("http://localhost.test", False),
        ("http://127.0.0.1.test", False),
        ("http://192.0.2.1", False),
        ("http://localhost", True),
        ("http://127.0.0.2", True),
        ("http://[::1]", True),
    ],
)
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_login_is_sent_without_tls_to_the_loopback_only(tmp_path: Path, base: str, told: bool, scheme: str) -> None:
    host = base.partition("://")[2]
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: LOGIN}}))
    credentials, root, asked = CredentialStore([tmp_path / "auth.json"], {}), parse_url(base), Asked()
    assert root is not None
    auth = RegistryAuth(root, host, "", credentials, asked)
    challenge = Challenge(scheme, (("realm", f"{base}/token"),))
    if told:
        assert auth.answer([challenge], PULL, "") == (BASIC if scheme == "basic" else "Bearer t")
        assert [one.authorization for one in asked] == [BASIC] * (scheme == "bearer")
        return
    with pytest.raises(EnvironmentLacking) as caught:
        auth.answer([challenge], PULL, "")
    assert caught.value.code == "credentials-need-tls" and asked == []


@pytest.mark.parametrize("entry", [LOGIN, {"identitytoken": "of the login"}, None])
def test_a_realm_on_another_host_is_told_nothing_unless_it_is_known(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker, entry: dict[str, str] | None
) -> None:
    tokens = Tokens(registry, other)
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry, entry).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "token-server-unknown"
    assert f"RELBUILD_TOKEN_SERVERS={registry.host}={other.host}" in str(caught.value)
    assert other.requests == [] and tokens.asked == []
    assert speak(registry, entry, token_servers=tokens.known).ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200


def test_a_registry_that_is_its_own_token_server_needs_no_configuration(registry: FakeRegistry, speak: Speaker) -> None:
    tokens = Tokens(registry, registry)
    assert speak(registry, LOGIN).ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 200
    assert tokens.asked[0][2] == BASIC


def test_a_known_token_server_is_known_for_one_registry_only(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    Tokens(registry, other)
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry, LOGIN, token_servers=f"another.test={other.host}").ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "token-server-unknown"
    assert other.requests == []


@pytest.mark.parametrize("registry", sorted(PUBLIC_TOKEN_SERVERS))
def test_public_registries_are_known_with_tls_and_on_its_port(registry: str) -> None:
    assert admits(f"https://{registry}", f"https://{PUBLIC_TOKEN_SERVERS[registry]}/token")
    assert admits(f"https://{registry}:443", f"https://{PUBLIC_TOKEN_SERVERS[registry]}:443/token")
    assert not admits(f"https://{registry}", f"http://{PUBLIC_TOKEN_SERVERS[registry]}/token")
    assert not admits(f"https://{registry}", f"https://{PUBLIC_TOKEN_SERVERS[registry]}:8443/token")
    assert not admits(f"https://{registry}", f"https://{PUBLIC_TOKEN_SERVERS[registry]}.evil.test/token")
    assert not admits("https://evil.test", f"https://{PUBLIC_TOKEN_SERVERS[registry]}/token")


def test_names_of_token_servers_are_read_with_ports_and_urls() -> None:
    assert admits("https://a.test:5000", "https://b.test/x", "A.test:5000=https://b.test/jwt/auth,c.test=d.test")
    assert admits("https://c.test", "https://D.test/", "a.test=b.test  c.test=d.test")
    assert not admits("https://a.test", "https://b.test/", "a.test:5000=b.test")
    assert not admits("https://a.test", "http://b.test/", "a.test=b.test:80")


@pytest.mark.parametrize("named", ["a.test", "a=b=c", "=b", "a=", "a=user:secret@b", "a=file:///etc", "a=b:99999"])
def test_what_names_no_token_server_is_an_error_that_repeats_nothing(named: str) -> None:
    with pytest.raises(UsageError) as caught:
        CredentialStore.of({"RELBUILD_TOKEN_SERVERS": named})
    assert caught.value.code == "token-servers-malformed"
    assert "secret" not in str(caught.value)


def test_a_realm_without_tls_is_told_nothing_by_a_registry_with_it(tmp_path: Path) -> None:
    asked = Asked()
    credential_store = wallet_of(tmp_path, {"host.test": LOGIN}, "host.test=auth.test:80")
    authority = authority_of(credential_store, asked)
    with pytest.raises(EnvironmentLacking, match="lacks TLS"):
        authority.answer([bearer("http://auth.test/token")], PULL, "")
    assert asked == []


def test_a_token_server_that_redirects_is_not_followed(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    def guard(request: Request) -> bool:
        if request.path.startswith("/token"):
            request.answer(307, Location=f"http://{other.host}/token")
        else:
            request.answer(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"')
        return False

    registry.guard = guard
    with pytest.raises(EnvironmentLacking) as caught:
        speak(registry, LOGIN).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code == "registry-token"
    assert other.requests == []


# --- what a token is asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        "repository:app:pull,push,delete",
        "repository:app:*",
        "repository:other:pull repository:app:pull",
        "registry:catalog:*",
        "repository:app:pull registry:catalog:*",
    ],
)
def test_a_challenge_does_not_widen_what_is_asked_for(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker, scope: str
) -> None:
    tokens = Tokens(registry, other)

    def guard(request: Request) -> bool:
        if "Authorization" in request.headers:
            return True
        request.answer(401, WWW_Authenticate=f'Bearer realm="{tokens.realm}",service="it",scope="{scope}"')
        return False

    registry.guard = guard
    speak(registry, LOGIN, token_servers=tokens.known).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert [query["scope"] for _, query, _ in tokens.asked] == [["repository:app:pull"]]


def test_a_realm_does_not_bring_a_wider_scope_in_its_query(tmp_path: Path) -> None:
    for entry in (LOGIN, {"identitytoken": "of the login"}):
        asked = Asked()
        credential_store = wallet_of(tmp_path, {"host.test": entry})
        authority = authority_of(credential_store, asked)
        realm = "https://host.test/t?tenant=a&scope=repository:x:*&Scope=y&service=z&offline_token=true&account=root#x"
        authority.answer([bearer(realm)], PULL, "")
        query = parse_qs(urlsplit(asked[0].url).query)
        form = parse_qs((asked[0].form or b"").decode())
        assert query["tenant"] == ["a"]
        assert {*query.get("scope", []), *form.get("scope", [])} == {"repository:app:pull"}
        assert not {"Scope", "offline_token"} & {*query, *form}
        assert query.get("account") != ["root"] and query.get("service") is None


def test_a_registry_that_wants_a_wider_token_is_reported_with_what_it_wants(
    registry: FakeRegistry, other: FakeRegistry, speak: Speaker
) -> None:
    tokens = Tokens(registry, other)

    def guard(request: Request) -> bool:
        challenge = f'Bearer realm="{tokens.realm}",service="it",scope="repository:library/app:pull"'
        request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
        return False

    registry.guard = guard
    exchange = speak(registry, LOGIN, token_servers=tokens.known)
    assert exchange.ask("GET", BLOB, scopes=PULL, limit=1 << 20).status == 401
    assert "repository:library/app:pull" in str(exchange.denied(PULL, "it answers 401"))


SCOPES = st.lists(
    st.one_of(
        st.just(CATALOG_SCOPE),
        st.builds(Scope.repository, st.sampled_from(["app", "a/b"]), st.sampled_from(["pull", "push", "delete"])),
    ),
    min_size=1,
    max_size=3,
)


@given(SCOPES, st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_no_challenge_makes_anything_else_be_asked_for(
    scopes: list[Scope], scope: str, realm: str, service: str
) -> None:
    """Law: whatever a challenge says, the token server gets our scopes, or nothing is asked at all."""
    asked = Asked()
    authority = authority_of(CredentialStore.of({}), asked)
    for place in (realm, f"https://host.test/{realm}"):
        challenge = Challenge("bearer", (("realm", place), ("scope", scope), ("service", service)))
        try:
            authority.answer([challenge], scopes, "")
        except EnvironmentLacking:
            continue
    ours = {(one.kind, one.name, action) for one in scopes for action in one.actions}
    for one in asked:
        assert urlsplit(one.url).netloc == "host.test"
        said = [word for text in parse_qs(urlsplit(one.url).query)["scope"] for word in text.split()]
        assert {(*word.split(":")[:2], action) for word in said for action in word.split(":")[2].split(",")} == ours


# --- what a token server answers -------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([401, 10**400, -(10**400), 10**4000, 0, -1]),
    st.floats(),
    st.none(),
    st.booleans(),
    st.text(max_size=10),
    st.lists(st.integers(), max_size=2),
)


@given(NUMBERS)
def test_a_token_lasts_a_minute_to_a_day_whatever_its_server_says(lasts: object) -> None:
    authority = authority_of(
        CredentialStore.of({}), lambda _: (200, json.dumps({"token": "t", "expires_in": lasts}).encode())
    )
    assert authority.answer([bearer("https://host.test/t")], PULL, "") == "Bearer t"
    assert authority.header(PULL) == "Bearer t"
    assert TOKEN_LIFETIME_MOST <= 24 * 3600


def test_an_expires_in_of_five_thousand_digits_is_no_internal_error() -> None:
    body = b'{"token": "t", "expires_in": ' + b"9" * 5000 + b"}"
    with pytest.raises(EnvironmentLacking) as caught:
        authority_of(CredentialStore.of({}), lambda _: (200, body)).answer([bearer("https://host.test/t")], PULL, "")
    assert caught.value.code == "registry-token"


@given(st.binary(max_size=60))
@example(b"[" * 100_000)
@example(b'{"token":' * 50_000)
@example(b'{"token":"\\ud800"}')
def test_no_answer_of_a_token_server_is_too_strange(body: bytes) -> None:
    try:
        shown = authority_of(CredentialStore.of({}), lambda _: (200, body)).answer(
            [bearer("https://host.test/t")], PULL, ""
        )
    except EnvironmentLacking as error:
        assert error.code == "registry-token"
    else:
        assert shown.startswith("Bearer ") and shown.isascii()


def test_a_token_is_bounded_and_so_is_their_number() -> None:
    long = json.dumps({"token": "t" * (TOKEN_LIMIT + 1)}).encode()
    with pytest.raises(EnvironmentLacking) as caught:
        authority_of(CredentialStore.of({}), lambda _: (200, long)).answer([bearer("https://host.test/t")], PULL, "")
    assert caught.value.code == "registry-token"
    authority = authority_of(CredentialStore.of({}), lambda _: (200, b'{"token":"t"}'))
    for number in range(TOKENS_KEPT + 50):
        authority.answer([bearer(f"https://host.test/{number}")], PULL, "")
    assert len(authority._tokens) == TOKENS_KEPT


def bearer(realm: str) -> Challenge:
    return Challenge("bearer", (("realm", realm),))


def wallet_of(folder: Path, auths: dict[str, dict[str, str]], token_servers: str = "") -> CredentialStore:
    (folder / "auth.json").write_text(json.dumps({"auths": auths}))
    return CredentialStore.of(
        {"REGISTRY_AUTH_FILE": str(folder / "auth.json"), "RELBUILD_TOKEN_SERVERS": token_servers}
    )


def authority_of(credential_store: CredentialStore, call: Callable[[TokenRequest], tuple[int, bytes]]) -> RegistryAuth:
    base = parse_url("https://host.test")
    assert base is not None
    return RegistryAuth(base, "host.test", "", credential_store, call)


# --- redirections ----------------------------------------------------------------------------------

LOCATIONS = ["http://[", "http://a:b:c/", f"http://{'a' * 70}/", "http://h:99999/", "\u2100://", "http://\u2100/", "//"]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirection_to_nonsense_is_refused_with_its_code(
    registry: FakeRegistry, speak: Speaker, location: str
) -> None:
    def guard(request: Request) -> bool:
        request.send_response(307)
        request.wfile.write(b"".join(request._headers_buffer))  # type: ignore[attr-defined]
        request._headers_buffer = []  # type: ignore[attr-defined]
        request.wfile.write(b"Location: " + location.encode() + b"\r\nContent-Length: 0\r\n\r\n")
        return False

    registry.guard = guard
    with pytest.raises((VerificationError, EnvironmentLacking)) as caught:
        speak(registry).ask("GET", BLOB, scopes=PULL, limit=1 << 20)
    assert caught.value.code in {"redirect-refused", "registry-unreachable"}


@pytest.mark.parametrize("base", ["https://h:99999", "https://[", "https://" + "a" * 64, "nothing"])
def test_a_registry_that_is_no_address_is_a_usage_error(base: str) -> None:
    with pytest.raises(UsageError) as caught:
        RegistryClient(base, network=Network(), credential_store=CredentialStore.of({}))
    assert caught.value.code == "mirror-url"
