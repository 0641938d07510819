"""Token servers: whom a registry may send us to with the password that was kept for it.

A registry answers 401 and names a `realm`, the URL of a server that gives out tokens. Whoever has taken over a
registry, or the connection to it, could name a server of his own and would be given the password; or one inside our
network, whose answer he would be shown as a token. So a realm is asked only where it is the registry itself (scheme,
host and port), or where somebody else than the registry says that it belongs to it: this table for public ones,
RELBUILD_TOKEN_SERVERS for others (docs/decisions/0021-deadlines-and-realms.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.errors import UsageError
from pipeline.urls import Url, parse_url

REALMS_VARIABLE = "RELBUILD_TOKEN_SERVERS"
"""Names more of them: `REGISTRY=SERVER`, with blanks or commas between, each a HOST or HOST:PORT."""

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
"""Public registries whose token server has another host. Others, such as ghcr.io, quay.io, gcr.io, public.ecr.aws,
registry.redhat.io and those at azurecr.io, are their own."""

_ENTRY = re.compile(r"([^\s,=]{1,300})=([^\s,=]{1,300})")


class TokenServers:
    """The token servers that are known to belong to a registry.

    `known`: pairs of a registry and a server, as HOST or HOST:PORT.
    """

    def __init__(self, known: frozenset[tuple[str, str]] = frozenset()) -> None:
        self._known = known | frozenset(PUBLIC_TOKEN_SERVERS.items())

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> TokenServers:
        """Return the public ones and those that RELBUILD_TOKEN_SERVERS names.

        Raises UsageError `token-servers-malformed`.
        """
        words = environment.get("RELBUILD_TOKEN_SERVERS", "").replace(",", " ").split()
        return cls(frozenset(_entry(word) for word in words))

    def admit(self, registry: Url, realm: Url) -> bool:
        """Return whether the token server at `realm` belongs to `registry`.

        One without TLS never belongs to a registry with it.
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
    """Return HOST[:PORT] as `Url.place` has it; of a whole URL the same.

    An empty text for what is none.
    """
    url = parse_url(text if "://" in text else f"https://{text}")
    if url is None or url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        return ""
    return url.place
