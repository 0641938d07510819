"""How the network is spoken to: proxies, certificates, time-outs, and one request with bounded redirects."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.transfer.certificates import load_certificates

if TYPE_CHECKING:
    import httpx

REDIRECTS = 5
"""A mirror redirector needs one or two; a loop needs an end."""

AGENT = "relbuild"


@dataclass(frozen=True, slots=True)
class Network:
    """What is particular about the way out of this machine. All of it is passed in; nothing is read from the
    environment here.

    `http_proxy`, `https_proxy`: proxy URLs for plain and for encrypted requests. `no_proxy`: host names (with
    their subdomains) that are reached directly, `*` for all. `ca_file`: certificates to trust instead of the
    system's. `timeout`: seconds to wait for a connection or for the next bytes. `backoff`: seconds before the
    first retry, doubled each time. `attempts`: how often one place is asked.
    """

    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout: float = 30.0
    backoff: float = 0.5
    attempts: int = 4

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Network:
        """From environment variables as curl reads them (`https_proxy`, `NO_PROXY`, …) and `SSL_CERT_FILE`."""

        def value(*names: str) -> str | None:
            return next((variables[name] for name in names if variables.get(name)), None)

        everything = value("all_proxy", "ALL_PROXY")
        certificates = value("SSL_CERT_FILE", "CURL_CA_BUNDLE")
        direct = (value("no_proxy", "NO_PROXY") or "").split(",")
        return cls(
            # HTTP_PROXY in capitals is not honoured: a CGI request could set it (CVE-2016-5385).
            http_proxy=value("http_proxy") or everything,
            https_proxy=value("https_proxy", "HTTPS_PROXY") or everything,
            no_proxy=tuple(host.strip() for host in direct if host.strip()),
            ca_file=Path(certificates) if certificates else None,
        )

    @contextlib.contextmanager
    def client(self, parallel: int = 1, *, certificates: Path | None = None) -> Iterator[httpx.Client]:
        """A client that knows nothing but what this value says, and the `certificates` of a folder, for one host."""
        import httpx  # only here: a build whose lock and packages are at hand does without, 40 ms sooner

        try:
            trust = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except OSError as error:
            raise EnvironmentLacking(
                "certificates-unreadable",
                f"the file of trusted certificates cannot be read: {error}",
                place=str(self.ca_file),
            ) from error
        if certificates is not None:
            load_certificates(trust, certificates)
        with httpx.Client(
            trust_env=False,
            verify=trust,
            mounts=self._mounts(trust),
            follow_redirects=False,
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel),
            # Bytes as they are stored: a transparent encoding would make sizes and ranges meaningless.
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
        ) as client:
            yield client

    def _mounts(self, trust: ssl.SSLContext) -> dict[str, httpx.BaseTransport | None]:
        import httpx

        mounts: dict[str, httpx.BaseTransport | None] = {}
        if "*" in self.no_proxy:
            return mounts
        for scheme, proxy in (("http://", self.http_proxy), ("https://", self.https_proxy)):
            if proxy:
                mounts[scheme] = httpx.HTTPTransport(proxy=proxy, verify=trust, trust_env=False)
        if mounts:
            for host in self.no_proxy:
                bare = host.lstrip(".")
                mounts[f"all://{bare}"] = None
                mounts[f"all://*.{bare}"] = None
        return mounts


@contextlib.contextmanager
def request(client: httpx.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """GET `url` and yield the response with its body unread, after at most REDIRECTS redirections.

    Only http and https are followed and never from https to http. Credentials in the URL stay with the host
    they were given for, because httpx takes them from the URL and a redirection names its own.
    Raises VerificationError `redirect-refused`, and httpx's own errors.
    """
    for _ in range(REDIRECTS + 1):
        with client.stream("GET", url, headers=dict(headers)) as response:
            if not response.has_redirect_location:
                yield response
                return
            target = urljoin(url, response.headers["location"])
        schemes = urlsplit(url).scheme, urlsplit(target).scheme
        if schemes[1] not in {"http", "https"} or schemes == ("https", "http"):
            raise VerificationError(
                "redirect-refused", f"{url} redirects to {target[:200]}, which is not followed", place=url
            )
        url = target
    raise VerificationError("redirect-refused", f"more than {REDIRECTS} redirections", place=url)
