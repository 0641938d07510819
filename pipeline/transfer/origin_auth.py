"""Basic authentication for httpx, sent only to the origins for which the credentials are."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import httpx

from pipeline.transfer.credentials import Credentials
from pipeline.urls import DEFAULT_PORTS


class OriginAuth(httpx.Auth):
    """Credentials by origin (RFC 6454); redirects to other origins do not get them."""

    def __init__(self, credentials: Mapping[tuple[str, str, int], Credentials]) -> None:
        self._credentials = dict(credentials)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request, with an Authorization header if its origin has credentials."""
        url = request.url
        origin = (url.scheme, url.host.lower(), url.port or DEFAULT_PORTS.get(url.scheme, 0))
        known = self._credentials.get(origin)
        if known is not None:
            request.headers["Authorization"] = known.basic
        yield request
