"""A server on loopback that speaks HTTP as badly as it is told to; the first word of a path says how.

What it does slowly it ends after some seconds, so that a client without deadlines fails its test and does not hang it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

CONTENT = bytes(range(256)) * 40
PAGE = b"<!DOCTYPE html><html><title>Sign on</title></html>"
TICK = 0.02
TICKS = 1000


def head(status: str, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    # The server closes after each answer. Unsaid, a client may send its next request into the end of the connection.
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


class SlowServer:
    """`asked`: how often each path was asked for; `order`: all that were, one after the other.

    `serve`: what answers a path that is no method's name.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.order: list[str] = []
        self.content = CONTENT
        self.serve: Callable[[str], bytes] = lambda path: head("404 Not Found")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.host = self.url.removeprefix("http://")
        self._closed = threading.Event()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._closed.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # Closing alone does not wake the thread that accepts.
        self._socket.close()
        self._accepting.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            path = asked.split(b" ")[1].decode()
            self.asked[path] += 1
            self.order.append(path)
            act = getattr(self, f"act_{path.lstrip('/').partition('/')[0].partition('?')[0]}", None)
            if act is not None:
                act(connection, path)
            else:
                connection.sendall(self.serve(path))

    def _slowly(self, connection: socket.socket, piece: bytes) -> None:
        for _ in range(TICKS):
            if self._closed.wait(TICK):
                return
            connection.sendall(piece)

    def act_good(self, connection: socket.socket, _: str) -> None:
        connection.sendall(head("200 OK", self.content))

    def act_headers(self, connection: socket.socket, _: str) -> None:
        """A head that never ends, byte by byte."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Pad: ")
        self._slowly(connection, b"a")

    def act_interim(self, connection: socket.socket, _: str) -> None:
        """Interim answers without end."""
        self._slowly(connection, b"HTTP/1.1 102 Processing\r\n\r\n")

    def act_silent(self, connection: socket.socket, _: str) -> None:
        self._closed.wait(TICK * TICKS)

    def act_trickle(self, connection: socket.socket, _: str) -> None:
        """A body of a byte at a time."""
        connection.sendall(head("200 OK", length=len(self.content)))
        self._slowly(connection, b"a")

    def act_chunks(self, connection: socket.socket, _: str) -> None:
        """The same in chunks, and no length."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._slowly(connection, b"1\r\na\r\n")

    def act_steady(self, connection: socket.socket, _: str) -> None:
        """All of it, as a slow line brings it: some ten thousand bytes per second."""
        connection.sendall(head("200 OK", length=len(self.content)))
        for start in range(0, len(self.content), 256):
            if self._closed.wait(TICK):
                return
            connection.sendall(self.content[start : start + 256])

    def act_stall(self, connection: socket.socket, _: str) -> None:
        """Half of it, and no more."""
        connection.sendall(head("200 OK", length=len(self.content)) + self.content[: len(self.content) // 2])
        self._closed.wait(TICK * TICKS)

    def act_thenheaders(self, connection: socket.socket, _: str) -> None:
        """A redirection, and then a head that never ends."""
        connection.sendall(head("302 Found", Location="/headers"))

    def act_unread(self, connection: socket.socket, _: str) -> None:
        """Reads nothing of what it is sent."""
        self._closed.wait(TICK * TICKS)

    def once(self, first: bytes) -> Callable[[str], bytes]:
        """For `serve`: at first `first`, then what is right."""
        return lambda path: first if self.asked[path] == 1 else head("200 OK", self.content)


@contextlib.contextmanager
def slow_server() -> Iterator[SlowServer]:
    """A SlowServer for as long as the block lasts."""
    server = SlowServer()
    try:
        yield server
    finally:
        server.close()
