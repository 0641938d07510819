"""A web server on loopback that wants to know who asks: a client certificate, a password, or both."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class GuardedServer:
    """`url`: where it is. `headers`: those of each request that it read, by path."""

    url: str
    headers: dict[str, dict[str, str]] = field(default_factory=dict)


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    guarded: GuardedServer
    login: str = ""
    authorization: str = ""
    moved_to: str = ""

    def do_GET(self) -> None:
        self.guarded.headers[self.path] = dict(self.headers.items())
        basic = "Basic " + base64.b64encode(self.login.encode()).decode() if self.login else ""
        wanted = self.authorization or basic
        if wanted and self.headers.get("Authorization") != wanted:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        elif self.moved_to:
            self._answer(302, {"Location": self.moved_to + self.path})
        else:
            super().do_GET()

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        return  # A client that is refused goes away.


@contextlib.contextmanager
def guarded_server(
    folder: Path,
    *,
    certificate: tuple[Path, Path] | None = None,
    clients: Path | None = None,
    login: str = "",
    authorization: str = "",
    moved_to: str = "",
) -> Iterator[GuardedServer]:
    """Serve `folder`: over TLS with `certificate`, to clients of the authority `clients` alone, with `login`, or with
    a whole `authorization`."""
    values = {"login": login, "authorization": authorization, "moved_to": moved_to}
    handler = type("Handler", (_Handler,), values)
    server = _Server(("localhost", 0), functools.partial(handler, directory=str(folder)))
    scheme = "http"
    if certificate is not None:
        scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    guarded = GuardedServer(f"{scheme}://localhost:{server.server_address[1]}")
    handler.guarded = guarded  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield guarded
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
