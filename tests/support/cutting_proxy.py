"""A connection that breaks: a proxy on the loopback that cuts what goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Cutter:
    """Passes TCP connections on to `target` (a port of the loopback). `budgets`: after how many bytes towards the
    target the next connections are cut, one after the other; when there are none left, nothing is cut."""

    def __init__(self, target: int) -> None:
        self.budgets: list[int] = []
        self.cuts = 0
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and end what is still open."""
        self._server.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            with self._lock:
                self._open |= {client, server}
            back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
            back.start()
            self._pump(client, server, True)
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                passed += len(data)
                with self._lock:
                    cut = counted and bool(self.budgets) and passed > self.budgets[0]
                    if cut:
                        self.budgets.pop(0)
                        self.cuts += 1
                if cut:
                    break
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(target: int) -> Iterator[Cutter]:
    """A Cutter for as long as the block lasts."""
    cutter = Cutter(target)
    try:
        yield cutter
    finally:
        cutter.close()
