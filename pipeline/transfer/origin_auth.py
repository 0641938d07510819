"""Authentication for httpx, sent only to the origins for which it is."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable

import httpx

from pipeline.errors import EnvironmentLacking
from pipeline.transfer.server_access import Origin
from pipeline.urls import DEFAULT_PORTS, shown_url

_STRANGER = "relbuild.stranger"
"""Name of a request's extension: somebody else than the definition led to its URL."""

_RawOrigin = tuple[str, bytes, int]


class OriginAuth(httpx.Auth):
    """Authorization by origin (RFC 6454); redirects to other origins do not get it.

    Hosts are compared in the form in which they are asked for (punycode). Origins in `negotiate` get a token of the
    person's Kerberos ticket (RFC 4559). Raises EnvironmentLacking `kerberos-missing`.
    """

    def __init__(self, authorization: Iterable[tuple[Origin, str]], negotiate: Iterable[Origin] = ()) -> None:
        self._headers = {raw: value for origin, value in authorization for raw in _raw(origin)}
        self._negotiated = frozenset(raw for origin in negotiate for raw in _raw(origin))
        self._kerberos = _kerberos() if self._negotiated else None

    def knows(self, request: httpx.Request) -> bool:
        """Return whether the request is to one of the origins."""
        origin = _origin(request.url)
        return origin in self._headers or origin in self._negotiated

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request, with an Authorization header if its origin has one."""
        origin = _origin(request.url)
        if request.extensions.get(_STRANGER):
            yield request
        elif self._kerberos is not None and origin in self._negotiated:
            try:
                yield from self._kerberos.auth_flow(request)
            except (httpx.RequestError, ValueError) as error:  # no ticket, or an answer that is no token
                raise _no_token(request, error) from error
        else:
            if origin in self._headers:
                request.headers["Authorization"] = self._headers[origin]
            yield request


def mark_as_strangers(request: httpx.Request) -> None:
    """Have `OriginAuth` add nothing to a request."""
    request.extensions = {**request.extensions, _STRANGER: True}


def _origin(url: httpx.URL) -> _RawOrigin:
    return url.scheme, url.raw_host, url.port or DEFAULT_PORTS.get(url.scheme, 0)


def _raw(origin: Origin) -> Iterable[_RawOrigin]:
    """Yield the origin as httpx asks for it; nothing for a host that it refuses."""
    scheme, host, port = origin
    try:
        yield _origin(httpx.URL(scheme=scheme, host=host, port=port))
    except httpx.InvalidURL:
        return


def _kerberos() -> httpx.Auth:
    """Make the authentication by a Kerberos ticket: with the first request, without delegation."""
    try:
        from httpx_gssapi import HTTPSPNEGOAuth
    except ImportError as error:
        raise EnvironmentLacking(
            "kerberos-missing",
            f"'negotiate' needs Kerberos, which is not installed: {error}",
            hint="install the extra: pip install 'relbuild[kerberos]'",
        ) from error
    quiet = logging.getLogger("httpx_gssapi")  # by itself it writes tracebacks to standard error
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    made: httpx.Auth = HTTPSPNEGOAuth(opportunistic_auth=True, delegate=False)
    return made


def _no_token(request: httpx.Request, error: Exception) -> EnvironmentLacking:
    return EnvironmentLacking(
        "kerberos-failed",
        f"no Kerberos token could be made for {request.url.host}: {str(error)[:500]}",
        place=shown_url(str(request.url)),
        hint="get a ticket: kinit (klist shows those that are there), or name a keytab with KRB5_CLIENT_KTNAME",
    )
