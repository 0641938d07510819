"""Authenticate requests to a registry: Basic, or bearer tokens, requested and cached.

RFC 7617; the distribution project's token authentication, with OAuth2 for identity tokens.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, urlencode

from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.challenge import (
    Challenge,
    Scope,
    merge_scopes,
    parse_scopes,
)
from pipeline.transfer.credentials import Credentials, CredentialStore
from pipeline.transfer.token_servers import REALMS_VARIABLE
from pipeline.urls import Url, is_loopback_host, parse_url, shown_url

TOKEN_ANSWER_LIMIT = 1 << 20
"""Bytes of a token server's response; tokens with many scopes have some ten thousand."""

CLIENT_ID = "relbuild"

TOKEN_LIMIT = 48 << 10
"""Characters of a token: it is sent in a header, which servers limit to much less than a MiB."""

TOKENS_KEPT = 256
"""Tokens that are cached: one for each repository and set of actions. A registry that names another service in each
response must not fill the memory."""

TOKEN_LIFETIME_MOST = 24 * 3600.0
"""Seconds after which a token is requested anew, whatever its server says: registries say minutes."""

_LIFETIME_DEFAULT = 60.0
"""Seconds that a token is valid if its server does not say so, or not validly (the protocol's own rule)."""
_RESERVED_PARAMETERS = frozenset(
    {"access_type", "account", "client_id", "grant_type", "offline_token", "scope", "service"}
)
"""Parameters of a token request that a realm's URL must not set."""
_PARAMETERS_MOST = 20
_LIFETIME_MARGIN = 0.1
"""Share of its lifetime before expiry in which a token is not used any more: a request may take long."""
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token server.

    `form`: body of a POST; None for a GET. `authorization`: the header's value; "" for none.
    """

    url: str
    form: bytes | None
    authorization: str


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


class RegistryAuth:
    """Authentication at one registry, with the tokens of its token server.

    `host`: as people write it; `call` sends a TokenRequest and returns (status, body).
    """

    def __init__(
        self,
        base: Url,
        host: str,
        namespace: str,
        credential_store: CredentialStore,
        call: Callable[[TokenRequest], tuple[int, bytes]],
    ) -> None:
        self._base = base
        self._host = host
        self._plain = base.scheme == "http" and not is_loopback_host(base.host)
        self._namespace = namespace
        self._credential_store = credential_store
        self._call = call
        self._lock = threading.Lock()
        self._way: Challenge | None = None
        self._demanded: tuple[Scope, ...] = ()
        self._tokens: dict[tuple[str, str, tuple[Scope, ...]], _Token] = {}

    def header(self, scopes: Sequence[Scope]) -> str:
        """Return the Authorization header of a request with `scopes`; "" before any challenge."""
        with self._lock:
            way = self._way
            if way is None:
                return ""
            if way.scheme == "basic":
                credentials = self._credentials(scopes)
                return credentials.basic if credentials else ""
            return self._bearer(way, merge_scopes(scopes))

    def answer(self, challenges: Sequence[Challenge], scopes: Sequence[Scope], refused: str) -> str:
        """Return the Authorization header for a second attempt at a request that got status 401.

        The response had `challenges`; the request had the header `refused` ("": none). A token is requested for
        `scopes` only, whatever scope the challenge names. Raises EnvironmentLacking `registry-denied` without a
        possible authentication, `credentials-need-tls`, `registry-token`, `token-server-unknown` for a realm that is
        not known to belong to the registry.
        """
        way = next((one for one in challenges if one.scheme == "bearer" and one.parameter("realm")), None)
        way = way or next((one for one in challenges if one.scheme == "basic"), None)
        if way is None:
            raise self.denied(scopes, "it offers no supported authentication scheme (Basic, Bearer)")
        with self._lock:
            if way.scheme == "basic":
                credentials = self._credentials(scopes)
                if credentials is None or not credentials.user or credentials.basic == refused:
                    why = "it rejects the credentials" if credentials else "it requires credentials"
                    raise self.denied(scopes, why)
                self._way = way
                return credentials.basic
            self._check_realm(way.parameter("realm"), scopes)
            self._way = way
            self._demanded = parse_scopes(way.parameter("scope"))
            self._tokens = {key: token for key, token in self._tokens.items() if token.header != refused}
            return self._bearer(way, merge_scopes(scopes))

    def denied(self, scopes: Sequence[Scope], why: str) -> EnvironmentLacking:
        """Make the error of a registry that denies access, with the files searched for credentials."""
        what = ", ".join(scope.name for scope in scopes) or "this"
        looked = ", ".join(str(path) for path in self._credential_store.files) or "no file (HOME is not set)"
        known = self._credentials(scopes)
        who = f"as '{known.user or 'the holder of an identity token'}'" if known else "without credentials"
        more = [str(one) for one in self._demanded if merge_scopes(scopes, (one,)) != merge_scopes(scopes)]
        wider = (
            f"; it requires a token for {shown_url(' '.join(more))}, which this command does not need" if more else ""
        )
        return EnvironmentLacking(
            "registry-denied",
            f"{self._host} denies access to {what} {who}: {why}{wider}",
            place=self._host,
            hint=f"log in with `podman login {self._host}`, or ask the registry's administrator for access; "
            f"credentials are read from {looked}",
        )

    def _credentials(self, scopes: Sequence[Scope]) -> Credentials | None:
        name = next((scope.name for scope in scopes if scope.kind == "repository"), self._namespace)
        return self._credential_store.find(self._host, name, plain=self._plain)

    def _bearer(self, way: Challenge, scopes: tuple[Scope, ...]) -> str:
        """Return the header with a cached or new token. The caller holds the lock."""
        realm, service = way.parameter("realm"), way.parameter("service")
        key = (realm, service, scopes)
        known = self._tokens.get(key)
        if known is None or known.until <= time.monotonic():
            known = self._new(realm, service, scopes)
            self._tokens.pop(key, None)
            while len(self._tokens) >= TOKENS_KEPT:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = known
        return known.header

    def _new(self, realm: str, service: str, scopes: tuple[Scope, ...]) -> _Token:
        credentials = self._credentials(scopes)
        asked = time.monotonic()
        status, data = self._call(self._token_request(realm, service, scopes, credentials))
        if status in {400, 401, 403}:
            raise self.denied(scopes, f"its token server {shown_url(realm)} answers {status}")
        try:
            answer = json.loads(data) if status == 200 else None
        except (ValueError, RecursionError):
            answer = None
        token, lasts = None, None
        if isinstance(answer, dict):
            token, lasts = answer.get("token") or answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or len(token) > TOKEN_LIMIT or not _TOKEN.fullmatch(token):
            raise EnvironmentLacking(
                "registry-token",
                f"the token server {shown_url(realm)} of {self._host} returned no token (status {status})",
                place=shown_url(realm),
                hint="try again later, or report it to the registry's administrator",
            )
        return _Token(f"Bearer {token}", asked + _lifetime(lasts) * (1 - _LIFETIME_MARGIN))

    def _check_realm(self, realm: str, scopes: Sequence[Scope]) -> None:
        """Raise EnvironmentLacking if a realm is no valid URL or does not belong to this registry."""
        url = parse_url(realm)
        if url is None or url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise self.denied(scopes, f"the address of its token server is invalid: {shown_url(realm)}")
        if url.scheme == "http" and self._base.scheme == "https":
            raise self.denied(
                scopes,
                f"its token server {shown_url(realm)} lacks TLS, which the registry uses; no credentials were sent",
            )
        if not self._credential_store.token_servers.admit(self._base, url):
            raise EnvironmentLacking(
                "token-server-unknown",
                f"{self._host} names the unknown token server {url.place}; no credentials were sent",
                place=self._host,
                hint=f"if {url.place} issues tokens for it, set {REALMS_VARIABLE}={self._base.place}={url.place}; if "
                "not, the registry or the network may be compromised: tell its administrator",
            )

    @staticmethod
    def _token_request(
        realm: str, service: str, scopes: Sequence[Scope], credentials: Credentials | None
    ) -> TokenRequest:
        realm, own = _own_query(realm)
        words = [str(scope) for scope in scopes]
        if credentials and credentials.identity_token:
            form = {"grant_type": "refresh_token", "service": service, "client_id": CLIENT_ID, "scope": " ".join(words)}
            form["refresh_token"] = credentials.identity_token
            return TokenRequest(f"{realm}?{urlencode(own)}" if own else realm, urlencode(form).encode(), "")
        query = [*own, ("service", service)] if service else own
        query += [("scope", word) for word in words] + [("client_id", CLIENT_ID)]
        query += [("account", credentials.user)] if credentials else []
        return TokenRequest(f"{realm}?{urlencode(query)}", None, credentials.basic if credentials else "")


def _own_query(realm: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a realm into its URL and its query parameters, without those that we set."""
    address, _, query = realm.partition("#")[0].partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_PARAMETERS_MOST)
    except ValueError:
        return address, []
    return address, [(name, value) for name, value in pairs if name.lower() not in _RESERVED_PARAMETERS]


def _lifetime(said: object) -> float:
    """Return the lifetime of a token in seconds, from its server's untrusted `expires_in`."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not said > 0:  # NaN is not
        return _LIFETIME_DEFAULT
    return float(min(said, TOKEN_LIFETIME_MOST))
