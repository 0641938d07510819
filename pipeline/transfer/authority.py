"""What a registry is shown so that it answers: Basic (RFC 7617), or tokens of a token server (the token
authentication of the distribution project, with OAuth2 for identity tokens)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from pipeline.errors import EnvironmentLacking
from pipeline.transfer.challenge import Challenge, Scope, merged, parse_scopes
from pipeline.transfer.credentials import Credentials, Wallet

ANSWER_LIMIT = 1 << 20
"""Bytes of a token server's answer; tokens with many scopes have some ten thousand."""

CLIENT = "relbuild"

_SHORTEST = 60.0
"""Seconds that a token lasts if its server does not say, and the least that a server may say (the protocol)."""
_MARGIN = 0.1
"""The part of its life in which a token is not used any more: a request may be long."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is asked of a token server. `form`: the body of a POST; None for a GET. `authorization`: a header's value
    or an empty text."""

    url: str
    form: bytes | None
    authorization: str


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are kept to (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


class Authority:
    """Knows how one registry wants to be asked. `call` sends a TokenRequest and returns (status, body)."""

    def __init__(
        self, base: str, namespace: str, wallet: Wallet, call: Callable[[TokenRequest], tuple[int, bytes]]
    ) -> None:
        self._base = base
        self._host = urlsplit(base).netloc
        self._namespace = namespace
        self._wallet = wallet
        self._call = call
        self._lock = threading.Lock()
        self._way: Challenge | None = None
        self._wider: dict[tuple[Scope, ...], tuple[Scope, ...]] = {}
        self._tokens: dict[tuple[str, str, tuple[Scope, ...]], _Token] = {}

    def header(self, scopes: Sequence[Scope]) -> str:
        """The Authorization for a request that needs `scopes`, as far as the registry said what it wants: an empty
        text before its first refusal."""
        with self._lock:
            way = self._way
            if way is None:
                return ""
            if way.scheme == "basic":
                credentials = self._credentials(scopes)
                return credentials.basic if credentials else ""
            return self._bearer(way, self._wider.get(tuple(scopes), merged(scopes)))

    def answer(self, challenges: Sequence[Challenge], scopes: Sequence[Scope], refused: str) -> str:
        """The Authorization for the same request once more, after it was refused with `challenges` although (or
        because) it had the header `refused`. Raises EnvironmentLacking `registry-denied` when there is none."""
        way = next((one for one in challenges if one.scheme == "bearer" and one.parameter("realm")), None)
        way = way or next((one for one in challenges if one.scheme == "basic"), None)
        if way is None:
            raise self.denied(scopes, "it says no way to log in that is known here (Basic, Bearer)")
        with self._lock:
            if way.scheme == "basic":
                credentials = self._credentials(scopes)
                if credentials is None or not credentials.user or credentials.basic == refused:
                    why = "it does not accept the credentials" if credentials else "it wants credentials"
                    raise self.denied(scopes, why)
                self._way = way
                return credentials.basic
            self._way = way
            wanted = merged(scopes, parse_scopes(way.parameter("scope")))
            self._wider[tuple(scopes)] = wanted
            self._tokens = {key: token for key, token in self._tokens.items() if token.header != refused}
            return self._bearer(way, wanted)

    def denied(self, scopes: Sequence[Scope], why: str) -> EnvironmentLacking:
        """The error for a registry that refuses, which says where credentials were looked for."""
        what = ", ".join(scope.name for scope in scopes) or "this"
        looked = ", ".join(str(path) for path in self._wallet.files) or "nowhere: neither HOME nor another is set"
        known = self._credentials(scopes)
        who = f"as '{known.user or 'the holder of an identity token'}'" if known else "without credentials"
        return EnvironmentLacking(
            "registry-denied",
            f"{self._host} refuses to let us into {what} {who}: {why}",
            place=self._host,
            hint=f"log in with `podman login {self._host}`, or ask the registry's keeper for the right; credentials "
            f"were looked for in {looked}",
        )

    def _credentials(self, scopes: Sequence[Scope]) -> Credentials | None:
        name = next((scope.name for scope in scopes if scope.kind == "repository"), self._namespace)
        return self._wallet.find(self._host, name)

    def _bearer(self, way: Challenge, scopes: tuple[Scope, ...]) -> str:
        """A token's header, from those at hand or a new one. The lock is held, so that many threads ask once."""
        realm, service = way.parameter("realm"), way.parameter("service")
        key = (realm, service, scopes)
        known = self._tokens.get(key)
        if known is None or known.until <= time.monotonic():
            known = self._tokens[key] = self._new(realm, service, scopes)
        return known.header

    def _new(self, realm: str, service: str, scopes: tuple[Scope, ...]) -> _Token:
        credentials = self._credentials(scopes)
        asked = time.monotonic()
        status, data = self._call(self._token_request(realm, service, scopes, credentials))
        if status in {400, 401, 403}:
            raise self.denied(scopes, f"its token server {_shown(realm)} answers {status}")
        try:
            answer = json.loads(data) if status == 200 else None
        except (ValueError, RecursionError):
            answer = None
        token, lasts = None, None
        if isinstance(answer, dict):
            token, lasts = answer.get("token") or answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise EnvironmentLacking(
                "registry-token",
                f"the token server {_shown(realm)} of {self._host} answers {status} and no token",
                place=_shown(realm),
                hint="try again later, or tell the registry's keeper",
            )
        seconds = float(lasts) if isinstance(lasts, int) and not isinstance(lasts, bool) else _SHORTEST
        return _Token(f"Bearer {token}", asked + seconds * (1 - _MARGIN))

    def _token_request(
        self, realm: str, service: str, scopes: Sequence[Scope], credentials: Credentials | None
    ) -> TokenRequest:
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise self.denied(scopes, f"its token server is said to be at {_shown(realm)}, which is no address")
        if parts.scheme == "http" and urlsplit(self._base).scheme == "https":
            raise self.denied(
                scopes, f"its token server {_shown(realm)} speaks no TLS, and nothing is told to it: the registry does"
            )
        words = [str(scope) for scope in scopes]
        if credentials and credentials.identity_token:
            form = {"grant_type": "refresh_token", "service": service, "client_id": CLIENT, "scope": " ".join(words)}
            form["refresh_token"] = credentials.identity_token
            return TokenRequest(realm, urlencode(form).encode(), "")
        query = [("service", service)] if service else []
        query += [("scope", word) for word in words] + [("client_id", CLIENT)]
        query += [("account", credentials.user)] if credentials else []
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        return TokenRequest(url, None, credentials.basic if credentials else "")


def _shown(text: str) -> str:
    """What a server said, for an error: bounded, on one line."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:200])
