"""Serves a site of look-alikes over HTTPS on loopback, behind a proxy that leads every host there."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.authority import Authority
from tests.support.lookalikes.site import LookalikeSite
from tests.support.tunnel_proxy import tunnel_proxy

_LOGIN = "lookalike:lookalike"


@dataclass(frozen=True, slots=True)
class ServedSite:
    """`recipes`: the folder of the definitions. `environment`: the variables that lead relbuild to the site. `asked`:
    the URLs that were asked for."""

    recipes: Path
    environment: dict[str, str]
    asked: list[str]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: LookalikeSite
    asked: list[str]

    def do_GET(self) -> None:
        host = self.headers["Host"].removesuffix(":443")
        url = f"https://{host}{self.path}"
        self.asked.append(url)
        assert isinstance(self.connection, ssl.SSLSocket)
        if host in self.site.certified and not self.connection.getpeercert():
            self._answer(403, b"")
        elif url in self.site.moved:
            self._answer(302, b"", {"Location": self.site.moved[url]})
        elif url in self.site.answers:
            self._answer(200, self.site.answers[url])
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        return  # A client that goes away.


@contextlib.contextmanager
def served_lookalikes(site: LookalikeSite, folder: Path) -> Iterator[ServedSite]:
    """Serve the site, with an authority and an entitlement of its own in `folder`."""
    authority = Authority(folder / "authority", "authority")
    authority.issue("entitlement", folder=folder / "entitlement")
    certificate = authority.issue("server", hosts=site.hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    asked: list[str] = []
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site, "asked": asked}))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with tunnel_proxy(server.server_address[1], _LOGIN) as proxy:
            environment = {
                "https_proxy": proxy.url.replace("://", f"://{_LOGIN}@"),
                "SSL_CERT_FILE": str(authority.certificate),
                "RELBUILD_VAR_ENTITLEMENT": str(folder / "entitlement"),
                "RELBUILD_VAR_ENTITLEMENT_CA": str(authority.certificate),
            }
            yield ServedSite(folder / "recipes", environment, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
