"""Read network settings from environment variables; make HTTP clients; GET with redirects."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RecipeError, RelbuildError, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.certificates import load_certificates
from pipeline.transfer.server_access import ServerAccess
from pipeline.urls import (
    Url,
    is_http_url,
    join_url,
    parse_url,
    shown_url,
)

if TYPE_CHECKING:
    import ssl

    import httpx

    from pipeline.transfer.deadlines import RequestBounds, RequestDeadlines

REDIRECTS = 5
"""Redirects that are followed: a mirror redirector needs one or two."""

USER_AGENT = "relbuild"

DEFAULT_TIMEOUT = 30.0
"""Seconds until response headers must be received, and of the window for throughput: as dnf's `timeout`."""

DEFAULT_MINRATE = 1000
"""Minimum throughput in bytes per second: dnf's `minrate`. A modem has six times as much."""

CONNECT_SHARE = 0.5
"""Share of `timeout` for connecting: with 30 s, enough for four lost packets in a row."""

HURRIED_SHARE = 1 / 6
"""Share of `timeout` for a server while there are other URLs to try: with 30 s, five seconds."""

HURRIED_RATE = 16
"""Multiple of `minrate` that such a server must reach. If none does, all are tried again with the full limits; partial
downloads are kept, so that this costs nothing on a slow line."""

_SECONDS = re.compile(r"[0-9]{1,5}")
_RATE = re.compile(r"[0-9]{1,9}")
_PLAIN_HOST = re.compile(r"[a-z0-9.-]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Network:
    """Network settings: proxies, certificates, timeouts, retries.

    `http_proxy`, `https_proxy`: proxy URLs for http and https requests. `no_proxy`: host names (with their subdomains)
    that are reached directly, `*` for all. `ca_file`: certificates to trust instead of the system's. `timeout`: seconds
    until response headers are received, and of each window in which `minrate` bytes per second must be received.
    `backoff`: seconds before the first retry, doubled each time. `attempts`: how often one URL is tried. `hurried`:
    tighter limits, because there are other URLs to try. `access`: settings of one repository.
    """

    http_proxy: str | None = field(default=None, repr=False)
    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout: float = DEFAULT_TIMEOUT
    backoff: float = 0.5
    attempts: int = 4
    minrate: int = DEFAULT_MINRATE
    hurried: bool = False
    access: ServerAccess = field(default_factory=ServerAccess)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Network:
        """Return the settings from environment variables, as curl reads them.

        These are `https_proxy`, `NO_PROXY`, …, `SSL_CERT_FILE`, RELBUILD_TIMEOUT and RELBUILD_MINRATE. Raises
        UsageError `network-variable`.
        """

        def value(*names: str) -> str | None:
            return next((variables[name] for name in names if variables.get(name)), None)

        everything = value("all_proxy", "ALL_PROXY")
        certificates = value("SSL_CERT_FILE", "CURL_CA_BUNDLE")
        direct = (value("no_proxy", "NO_PROXY") or "").split(",")
        return cls(
            # HTTP_PROXY in capitals is not honoured: a CGI request could set it (CVE-2016-5385).
            http_proxy=_proxy(value("http_proxy") or everything, "http_proxy"),
            https_proxy=_proxy(value("https_proxy", "HTTPS_PROXY") or everything, "https_proxy"),
            no_proxy=tuple(host.strip() for host in direct if host.strip()),
            ca_file=Path(certificates) if certificates else None,
            timeout=float(
                _number(
                    variables.get("RELBUILD_TIMEOUT", ""), "RELBUILD_TIMEOUT", _SECONDS, int(DEFAULT_TIMEOUT), least=1
                )
            ),
            minrate=_number(variables.get("RELBUILD_MINRATE", ""), "RELBUILD_MINRATE", _RATE, DEFAULT_MINRATE, least=0),
        )

    def reaches_directly(self, place: Url) -> bool:
        """Return whether requests to `place` certainly go through no proxy."""
        if not (self.http_proxy if place.scheme == "http" else self.https_proxy) or "*" in self.no_proxy:
            return True
        names = (name.lower().lstrip(".") for name in self.no_proxy)
        return any(f".{place.host}".endswith(f".{name}") for name in names if _PLAIN_HOST.fullmatch(name))

    def hurry(self) -> Network:
        """Return the settings for a URL with alternatives: one attempt, with tighter limits."""
        return replace(self, attempts=1, hurried=True)

    def bounds(self, *, answer: float | None = None) -> RequestBounds:
        """Return the time limits and minimum throughput of a request.

        `answer`: seconds until response headers are received, if not `timeout`.
        """
        from pipeline.transfer.deadlines import RequestBounds

        if self.hurried:
            part = self.timeout * HURRIED_SHARE
            return RequestBounds(part, answer or part, part, self.minrate * HURRIED_RATE)
        return RequestBounds(self.timeout * CONNECT_SHARE, answer or self.timeout, self.timeout, self.minrate)

    @contextlib.contextmanager
    def client(self, parallel: int = 1, *, certificates: Path | None = None) -> Iterator[httpx.Client]:
        """Yield an HTTP client with these settings and the `certificates` of a folder.

        It reads no other settings from the environment. Raises EnvironmentLacking `certificates-unreadable`, UsageError
        `network-variable`, RecipeError `access-incomplete`.
        """
        import httpx  # only here: a build from a lock and the store does not need it, and starts 40 ms sooner

        trust = self._authorities()
        if self.access.certificate is not None:
            self.access.certificate.load(trust)
        if certificates is not None:
            load_certificates(trust, certificates)
        from pipeline.transfer.deadlines import with_deadlines

        limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
        with httpx.Client(
            trust_env=False,
            transport=with_deadlines(httpx.HTTPTransport(verify=trust, limits=limits, trust_env=False)),
            mounts=self._mounts(trust, limits),
            follow_redirects=False,
            auth=self._auth(),
            # `deadlines` has the limits for sockets. Waiting for a free connection has none: all may be in use for
            # large uploads, which have their own limits.
            timeout=httpx.Timeout(self.timeout, pool=None),
            # Content as stored: with a Content-Encoding, sizes and ranges would have no meaning.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
        ) as client:
            yield client

    def _authorities(self) -> ssl.SSLContext:
        """Return a context with the authorities that are trusted, and no certificate of the client."""
        from pipeline.transfer.machine_authorities import MachineAuthorities

        return MachineAuthorities(self.access.ca_file or self.ca_file)

    def _auth(self) -> httpx.Auth | None:
        if not self.access.logs_in:
            return None
        from pipeline.transfer.origin_auth import OriginAuth

        return OriginAuth(self.access.authorization, self.access.negotiate)

    def _mounts(self, trust: ssl.SSLContext, limits: httpx.Limits) -> dict[str, httpx.BaseTransport | None]:
        import httpx

        from pipeline.transfer.deadlines import with_deadlines

        mounts: dict[str, httpx.BaseTransport | None] = {}
        if "*" in self.no_proxy:
            return mounts
        own, known = self.access.proxy, self.access.proxy_credentials
        for scheme, proxy in (("http://", own or self.http_proxy), ("https://", own or self.https_proxy)):
            if proxy:
                auth = (known.user, known.password) if known and own else None
                try:
                    # By itself the library knows proxies by its own list of authorities.
                    secure = self._authorities() if proxy.lower().startswith("https:") else None
                    named = httpx.Proxy(proxy, auth=auth, ssl_context=secure)
                except httpx.InvalidURL as error:  # host names that httpx alone refuses
                    raise _proxy_refused(bool(own), scheme, str(error)[:200]) from error
                through = httpx.HTTPTransport(proxy=named, verify=trust, limits=limits, trust_env=False)
                mounts[scheme] = with_deadlines(through)
        if mounts:
            for host in self.no_proxy:
                bare = f"[{host}]" if ":" in host and "[" not in host else host.lstrip(".")
                for pattern in (f"all://{bare}", f"all://*.{bare}"):
                    with contextlib.suppress(httpx.InvalidURL):  # no host of a URL is called so
                        httpx.URL(pattern)
                        mounts[pattern] = None
        return mounts


def _proxy(text: str | None, name: str) -> str | None:
    """Return a proxy's URL; without a scheme it is http, as for curl.

    Raises UsageError `network-variable`.
    """
    if not text:
        return None
    url = text if _SCHEME.match(text) else f"http://{text}"
    if not is_http_url(url):
        raise _unusable(name, "it is not the URL of an HTTP proxy", "http://HOST:PORT")
    return url


def _proxy_refused(own: bool, scheme: str, why: str) -> RelbuildError:
    if own:
        hint = "write http://HOST:PORT or https://HOST:PORT"
        return RecipeError("access-incomplete", f"'proxy' cannot be used: {why}", hint=hint)
    return _unusable(f"{scheme.partition(':')[0]}_proxy", why, "http://HOST:PORT")


def _number(given: str, name: str, form: re.Pattern[str], default: int, *, least: int) -> int:
    text = given.strip()
    if not text:
        return default
    if not form.fullmatch(text) or int(text) < least:
        raise _unusable(name, "it is not a valid whole number", f"a whole number of at least {least}, or unset it")
    return int(text)


def _unusable(name: str, why: str, form: str) -> UsageError:
    return UsageError(
        "network-variable", f"the environment variable {name} cannot be used: {why}", place=name, hint=f"write {form}"
    )


@contextlib.contextmanager
def send_get(
    client: httpx.Client, url: str, headers: Mapping[str, str], watch: RequestDeadlines
) -> Iterator[httpx.Response]:
    """GET `url` and yield the response with its body unread.

    At most REDIRECTS redirects are followed, all under `watch`, to http and https, never from https to http. A URL's
    credentials are sent to its own host only, because httpx takes them from each URL. Who was sent on by a stranger is
    no longer told who asks, wherever that leads. Raises VerificationError `redirect-refused`, and httpx's errors.
    """
    from pipeline.transfer.deadlines import build_request, stream_request
    from pipeline.transfer.origin_auth import OriginAuth, mark_as_strangers

    strange = False
    for _ in range(REDIRECTS + 1):
        request = build_request(client, "GET", url, headers)
        strange = strange or (isinstance(client.auth, OriginAuth) and not client.auth.knows(request))
        if strange:
            mark_as_strangers(request)
        with stream_request(client, request, watch) as response:
            if not response.has_redirect_location:
                yield response
                return
            location = response.headers["location"]
        target = join_url(url, location)
        here, there = parse_url(url), parse_url(target)
        if not is_http_url(target) or (here and there and (here.scheme, there.scheme) == ("https", "http")):
            text = f"{shown_url(url)} redirects to {shown_url(location)}, which is refused (another scheme, or no TLS)"
            raise VerificationError("redirect-refused", text, place=shown_url(url))
        url = target
    raise VerificationError("redirect-refused", f"more than {REDIRECTS} redirections", place=shown_url(url))
