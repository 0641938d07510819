"""A registry with a counter in front of it, and what lies on its disk."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.support.cutting_proxy import Cutter
from tests.support.foreign_programs import docker_registry


class Counted(Cutter):
    """Cuts nothing. `sent`: bytes that clients have sent, with all headers; `received`: that they got."""

    def __init__(self, target: int) -> None:
        self.sent = 0
        self.received = 0
        super().__init__(target)

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                with self._lock:
                    if counted:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def counted_registry(folder: Path) -> Iterator[tuple[str, Counted]]:
    """A docker-registry whose data is in `folder`, reached through a counter; yields `127.0.0.1:PORT` and that."""
    with docker_registry(folder) as host:
        counter = Counted(int(host.rpartition(":")[2]))
        try:
            yield f"127.0.0.1:{counter.port}", counter
        finally:
            counter.close()


def stored(folder: Path) -> dict[str, int]:
    """The blobs and manifests on a docker-registry's disk: hex → bytes."""
    found = (folder / "data" / "docker" / "registry" / "v2" / "blobs").rglob("data")
    return {path.parent.name: path.stat().st_size for path in found}
