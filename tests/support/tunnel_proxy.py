"""A proxy on loopback that wants a password, and leads every host to one server here."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator


class TunnelProxy:
    """`asked`: the `HOST:PORT` of each CONNECT that had the password. `url`: where it is, without it."""

    def __init__(self, target: int, login: str) -> None:
        self.asked: list[str] = []
        self._target = target
        self._wanted = "Basic " + base64.b64encode(login.encode()).decode()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 65536:
                head += client.recv(65536)
            lines = head.decode("latin-1").split("\r\n")
            if f"proxy-authorization: {self._wanted}".lower() not in [line.lower() for line in lines]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            self.asked.append(lines[0].split()[1])
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 18):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tunnel_proxy(target: int, login: str) -> Iterator[TunnelProxy]:
    """A proxy for as long as the block lasts."""
    proxy = TunnelProxy(target, login)
    try:
        yield proxy
    finally:
        proxy.close()
