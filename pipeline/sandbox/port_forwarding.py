"""Forward a port of the host to a port of an instance (`run --publish`).

One thread accepts connections on the host and connects to the instance; a connection costs two sockets and at most two
buffers, and nothing more is read from one side while the other does not take it.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import field

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel
from pipeline.sandbox.instance import Instance
from pipeline.system_errors import port_unavailable

_CONNECTIONS = 512
"""Connections at the same time; more wait in the kernel's queue until one has ended."""

_PIECE = 65536
"""Bytes that are buffered for each direction of a connection."""

_BACKLOG = 128
_STOP_TIMEOUT = 5.0
_CLOSED_EARLY = (errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN)


@dataclass(slots=True, eq=False)
class _Side:
    """One end of a forwarded connection.

    `waiting` are bytes to be written to it; `ended`: the other end will send no more; `told`: this end was shut down
    for writing after that.
    """

    socket: socket.socket
    connected: bool = True
    read_all: bool = False
    ended: bool = False
    told: bool = False
    waiting: bytearray = field(default_factory=bytearray)
    watched: int = 0
    other: _Side | None = None


_LAST_PORT = 65535


@contextlib.contextmanager
def reserve_port(host_port: int, *, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Listen on `host:host_port` (0: any free one), for an instance that is launched later.

    Connections wait until `publish_port` accepts them, which closes it at its end. Raises EnvironmentLacking
    `port-unavailable`, UsageError `port-too-high`.
    """
    if host_port > _LAST_PORT:
        raise UsageError(
            "port-too-high",
            f"there is no port {host_port}: the last one is {_LAST_PORT}",
            hint="publish a lower one; each further instance has the next",
        )
    try:
        listening = socket.create_server((host, host_port), backlog=_BACKLOG)
    except OSError as error:
        raise port_unavailable(host, host_port, error) from error
    with listening:
        yield listening


@contextlib.contextmanager
def publish_port(instance: Instance, listening: socket.socket, container_port: int) -> Iterator[int]:
    """Forward a reserved port to the instance's port; yield the host's port.

    Forwards for as long as the block lasts, then closes the port: clients are refused while the instance is ended.
    Connections reach the instance over its link, under its bandwidth limit.

    Raises UsageError `no-address` for an instance without a link.
    """
    with listening, _forwarding(instance, listening, container_port):
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def _forwarding(instance: Instance, listening: socket.socket, container_port: int) -> Iterator[None]:
    link = instance.link
    if link is None:
        raise UsageError(
            "no-address",
            f"port not published: instance '{instance.name}' has no network address",
            hint=instance.no_link_reason,
        )
    forwarder = _Forwarder(listening, link.outside, (link.address, container_port))
    thread = threading.Thread(target=forwarder.run, name=f"publish-{container_port}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        forwarder.stop()
        thread.join(_STOP_TIMEOUT)


class _Forwarder:
    """The event loop that forwards the connections of one published port.

    Its thread joins the outer network namespace of the instance, from which it connects; accepted connections belong to
    the namespace of the listening socket.
    """

    def __init__(self, listening: socket.socket, namespace: int, target: tuple[str, int]) -> None:
        self._listening = listening
        self._namespace = namespace
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._open: set[_Side] = set()
        self._wake, self._woken = socket.socketpair()
        listening.setblocking(False)

    def stop(self) -> None:
        """End the loop and every connection."""
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def run(self) -> None:
        """Forward connections until `stop` is called."""
        try:
            kernel.setns(self._namespace, kernel.CLONE_NEWNET)
            self._selector.register(self._woken, selectors.EVENT_READ)
            self._selector.register(self._listening, selectors.EVENT_READ)
            accepting = True
            while True:
                for key, events in self._selector.select():
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.data in self._open:
                        self._serve(key.data, events)
                room = len(self._open) < 2 * _CONNECTIONS
                if room != accepting:
                    accepting = room
                    if room:
                        self._selector.register(self._listening, selectors.EVENT_READ)
                    else:
                        self._selector.unregister(self._listening)
        finally:
            for side in list(self._open):
                side.socket.close()
            self._selector.close()
            self._wake.close()
            self._woken.close()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except OSError:
            # The client has disconnected, or this process has no descriptors left for the moment.
            time.sleep(0.01)
            return
        try:
            dialled = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            accepted.close()
            return
        client, server = _Side(accepted), _Side(dialled, connected=False)
        client.other, server.other = server, client
        for side in (client, server):
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(side)
        if dialled.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            self._close(client)
            return
        self._watch(client)
        self._watch(server)

    def _serve(self, side: _Side, events: int) -> None:
        other = side.other
        assert other is not None
        try:
            if not side.connected:
                if number := side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, "connect")
                side.connected = True
            if events & selectors.EVENT_READ and not side.read_all and len(other.waiting) < _PIECE:
                self._read(side, other)
            for end in (side, other):
                self._write(end)
        except BlockingIOError:
            pass
        except OSError:
            self._close(side)
            return
        if side.told and other.told:
            self._close(side)
            return
        self._watch(side)
        self._watch(other)

    @staticmethod
    def _read(side: _Side, other: _Side) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = side.socket.recv(_PIECE - len(other.waiting))
            other.waiting += piece
            if not piece:
                side.read_all = other.ended = True

    @staticmethod
    def _write(side: _Side) -> None:
        if not side.connected:
            return
        if side.waiting:
            with contextlib.suppress(BlockingIOError):
                sent = side.socket.send(side.waiting)
                del side.waiting[:sent]
        if side.ended and not side.waiting and not side.told:
            # Half closed: the other direction goes on.
            side.told = True
            try:
                side.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno not in _CLOSED_EARLY:
                    raise

    def _watch(self, side: _Side) -> None:
        other = side.other
        assert other is not None
        wanted = 0
        if side.connected and not side.read_all and len(other.waiting) < _PIECE:
            wanted |= selectors.EVENT_READ
        if side.waiting or not side.connected:
            wanted |= selectors.EVENT_WRITE
        if wanted == side.watched:
            return
        if not side.watched:
            self._selector.register(side.socket, wanted, side)
        elif not wanted:
            self._selector.unregister(side.socket)
        else:
            self._selector.modify(side.socket, wanted, side)
        side.watched = wanted

    def _close(self, side: _Side) -> None:
        """Close both ends of a connection."""
        for end in (side, side.other):
            if end is not None and end in self._open:
                self._open.discard(end)
                if end.watched:
                    self._selector.unregister(end.socket)
                end.socket.close()
