"""Decide which token servers belong to a registry, and may get the password for it.

A registry responds with 401 and names a `realm`, the URL of a token server. Whoever controls a registry, or the
connection to it, could name a server of his own and be sent the password; or a server in our network, whose response he
would get as a token. So a realm is used only if it is the registry itself (scheme, host and port), or if a source other
than the registry says that it belongs to it: this table for public ones, RELBUILD_TOKEN_SERVERS for others
(docs/decisions/0021-deadlines-and-realms.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.errors import UsageError
from pipeline.urls import Url, parse_url

REALMS_VARIABLE = "RELBUILD_TOKEN_SERVERS"
"""Environment variable with more pairs `REGISTRY=SERVER`, separated by blanks or commas, each HOST or HOST:PORT."""

PUBLIC_TOKEN_SERVERS: Mapping[str, str] = MappingProxyType(
    {
        "docker.io": "auth.docker.io",
        "index.docker.io": "auth.docker.io",
        "registry-1.docker.io": "auth.docker.io",
        "docker.elastic.co": "docker-auth.elastic.co",
        "registry.digitalocean.com": "api.digitalocean.com",
        "registry.gitlab.com": "gitlab.com",
    }
)
"""Public registry → its token server on another host. Others, such as ghcr.io, quay.io, gcr.io, public.ecr.aws,
registry.redhat.io and those at azurecr.io, issue their tokens themselves."""

_ENTRY = re.compile(r"([^\s,=]{1,300})=([^\s,=]{1,300})")


class TokenServers:
    """Known pairs of registry and token server.

    `known`: pairs besides the public ones, each as HOST or HOST:PORT.
    """

    def __init__(self, known: frozenset[tuple[str, str]] = frozenset()) -> None:
        self._known = known | frozenset(PUBLIC_TOKEN_SERVERS.items())

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> TokenServers:
        """Return the public pairs and those of RELBUILD_TOKEN_SERVERS.

        Raises UsageError `token-servers-malformed`.
        """
        words = environment.get("RELBUILD_TOKEN_SERVERS", "").replace(",", " ").split()
        return cls(frozenset(_entry(word) for word in words))

    def admit(self, registry: Url, realm: Url) -> bool:
        """Return whether the token server at `realm` belongs to `registry`.

        A server without TLS never belongs to a registry with TLS.
        """
        if realm.origin == registry.origin:
            return True
        if realm.scheme != "https" and registry.scheme == "https":
            return False
        return (registry.place, realm.place) in self._known


def _entry(word: str) -> tuple[str, str]:
    found = _ENTRY.fullmatch(word)
    places = [_place(text) for text in found.groups()] if found else []
    if len(places) != 2 or not all(places):
        raise UsageError(
            "token-servers-malformed",
            f"{REALMS_VARIABLE} has an entry that is not REGISTRY=SERVER",
            place=REALMS_VARIABLE,
            hint="write each as HOST[:PORT]=HOST[:PORT], with blanks or commas between",
        )
    return places[0], places[1]


def _place(text: str) -> str:
    """Return HOST[:PORT] of a host or URL in the form of `Url.place`; "" if it is invalid."""
    url = parse_url(text if "://" in text else f"https://{text}")
    if url is None or url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        return ""
    return url.place
