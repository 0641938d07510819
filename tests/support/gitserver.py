"""A git server that asks for a user name and password: git's own, behind a few lines of HTTP."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.patience import HUNG


@contextlib.contextmanager
def git_server(folder: Path, account: tuple[str, str]) -> Iterator[str]:
    """Serves the repositories in `folder` for as long as the block lasts; yields its address."""
    wanted = "Basic " + base64.b64encode(":".join(account).encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = (
            True  # Headers and body go apart: else each answer waits 40 ms for an acknowledgement.
        )

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])) if "content-length" in self.headers else b""
            while "chunked" in self.headers.get("transfer-encoding", ""):
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
            self._answer(body)

        def log_message(self, *words: object) -> None:
            """Says nothing."""

        def _answer(self, body: bytes) -> None:
            if self.headers.get("authorization") != wanted:
                self._reply(401, [("WWW-Authenticate", 'Basic realm="git"')], b"")
                return
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "REMOTE_USER": account[0],
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True, timeout=HUNG
            )
            head, _, answer = done.stdout.partition(b"\r\n\r\n")
            fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
            status = int(next((value.split()[0] for name, value in fields if name == "Status"), "200"))
            self._reply(status, [(name, value) for name, value in fields if name != "Status"], answer)

        def _reply(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in (*fields, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
