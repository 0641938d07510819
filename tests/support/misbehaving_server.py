"""An HTTP server on loopback that misbehaves as the path says, and downloads of the one file that it has."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.digest import Digest
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Download, Network, fetch
from tests.support.patience import HUNG

CONTENT = bytes(range(256)) * 2000
DIGEST = Digest.of(CONTENT)
NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=3)


class MisbehavingServer:
    """Serves CONTENT at every path; the path's first word says how."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag = '"one"'
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # Headers and body go apart: else each answer waits 40 ms for an acknowledgement.
            )

            def do_GET(self) -> None:
                owner.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                getattr(owner, f"serve_{urlsplit(self.path).path.split('/')[1]}")(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, path: str) -> int:
        return sum(one == path for one, _ in self.requests)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        data: bytes,
        status: int = 200,
        length: int | None = None,
        **more: str,
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.send_header("ETag", self.etag)
        for name, value in more.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    def serve_good(self, handler: BaseHTTPRequestHandler, data: bytes = CONTENT) -> None:
        wanted = handler.headers.get("Range")
        if wanted and handler.headers.get("If-Range", self.etag) == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._send(handler, b"", 416, Content_Range=f"bytes */{len(data)}")
                return
            self._send(handler, data[start:], 206, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self._send(handler, data)

    def serve_wrong(self, handler: BaseHTTPRequestHandler) -> None:
        self.serve_good(handler, CONTENT[:-1] + b"?")

    def serve_long(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT + b"more")

    def serve_norange(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT)

    def serve_truncated(self, handler: BaseHTTPRequestHandler) -> None:
        """Promises all, sends a part, and hangs up; each time goes a little further."""
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        piece = CONTENT[start : start + 200_000]
        status = 206 if start else 200
        ranged = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        self._send(handler, piece, status, length=len(CONTENT) - start, **ranged)
        handler.close_connection = True

    def serve_short(self, handler: BaseHTTPRequestHandler) -> None:
        """Says that half is all."""
        self._send(handler, CONTENT[: len(CONTENT) // 2])

    def serve_busy(self, handler: BaseHTTPRequestHandler) -> None:
        if self.count(handler.path) < 3:
            self._send(handler, b"", 503)
        else:
            self._send(handler, CONTENT)

    def serve_missing(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 404)

    def serve_to(self, handler: BaseHTTPRequestHandler) -> None:
        """Redirects to what follows."""
        self._send(handler, b"", 302, Location=handler.path.removeprefix("/to"))

    def serve_loop(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 302, Location="/loop")

    def serve_tofile(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 302, Location="file:///etc/passwd")

    def serve_encoded(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT, Content_Encoding="gzip")


def get(store: Store, *urls: str, size: int | None = len(CONTENT), target: Digest | None = DIGEST) -> Digest:
    (digest,) = fetch(store, [Download(urls, target, size, "thing")], progress=QUIET, network=NETWORK)
    return digest


def partial(store: Store, data: bytes) -> Path:
    folder = store.metadata / "partial"
    folder.mkdir(exist_ok=True)
    path = folder / DIGEST.hex
    path.write_bytes(data)
    return path
