"""Basic authentication that is kept to the origins that it was given for."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import httpx

from pipeline.transfer.credentials import Credentials
from pipeline.urls import DEFAULT_PORTS


class OriginAuth(httpx.Auth):
    """Credentials for requests to their own origin: no redirection takes them along (RFC 6454)."""

    def __init__(self, credentials: Mapping[tuple[str, str, int], Credentials]) -> None:
        self._credentials = dict(credentials)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request, with the header where it belongs."""
        url = request.url
        origin = (url.scheme, url.host.lower(), url.port or DEFAULT_PORTS.get(url.scheme, 0))
        known = self._credentials.get(origin)
        if known is not None:
            request.headers["Authorization"] = known.basic
        yield request
