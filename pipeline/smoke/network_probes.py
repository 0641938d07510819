"""HTTP requests and stream exchanges with an instance, over its network or a unix socket.

No program of the image is needed.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

from pipeline.errors import RelbuildError
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.probe import HttpReply, Unanswered
from pipeline.model.value_comparison import quote_answer, readable
from pipeline.model.value_rules import Rule
from pipeline.sandbox import LaunchedInstance
from pipeline.smoke.procfs import connect_socket, list_listeners
from pipeline.smoke.stream_probe import INCOMPLETE, PROBE_ANSWER_LIMIT, TIMED_OUT, StreamProbe

_TRUST_LIMIT = 4 << 20
"""Bytes of a file of certificates: Mozilla's bundle has 0.2 MiB."""
_TLS_ALERT = "\x15\x03"
"""Beginning of a TLS alert, with which a server answers what is not TLS (RFC 8446, 5.1 and B.1)."""
_LISTENERS_SHOWN = 8


def probe_stream(
    instance: LaunchedInstance,
    address: str | None,
    *,
    port: int,
    path: str,
    send: bytes,
    rules: Sequence[Rule],
    deadline: float,
) -> bytes:
    """Send to a port, or to the socket at `path`, and return the answer.

    Reads until the answer meets the rules or the other side closes. `address` is the instance's address; None: its
    loopback. Raises Unanswered.
    """

    def connect(within: float) -> socket.socket:
        return _connection(instance, port, path, within, address)

    try:
        answer = StreamProbe(connect, send, rules, deadline).answer()
    except OSError as error:
        raise Unanswered(_reason(error, instance), timed_out=isinstance(error, TimeoutError)) from error
    if isinstance(answer, bytes):
        return answer
    raise Unanswered(answer, timed_out=answer == TIMED_OUT or answer.startswith(INCOMPLETE))


def probe_http(instance: LaunchedInstance, address: str | None, asked: HttpRequest, deadline: float) -> HttpReply:
    """Ask by HTTP, and read up to `PROBE_ANSWER_LIMIT` bytes of the body.

    `address` as for `probe_stream`. Raises Unanswered.
    """
    try:
        return _exchange(asked, instance, deadline, address)
    except (OSError, http.client.HTTPException) as error:
        # A shutdown at the deadline may show as any error.
        late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
        raise Unanswered(readable(_reason(error, instance)), timed_out=late) from error


def _exchange(asked: HttpRequest, instance: LaunchedInstance, deadline: float, address: str | None) -> HttpReply:
    with (
        _connected(instance, asked.port, asked.socket, deadline, address) as plain,
        _shut_down_at(deadline, plain) as shut_down,
        contextlib.ExitStack() as closing,
    ):
        try:
            stream = closing.enter_context(_encrypted(asked, instance, plain)) if asked.tls else plain
            reply = _exchanged(asked, stream)
        except (http.client.HTTPException, OSError) as error:
            # Shut down by `_shut_down_at`, which may show as a broken pipe, a reset, an early end.
            if time.monotonic() >= deadline:
                raise TimeoutError(INCOMPLETE) from error
            raise
        # It also shows as the end of an answer without a length.
        if shut_down.is_set():
            raise TimeoutError(INCOMPLETE)
        return reply


def _exchanged(asked: HttpRequest, stream: socket.socket) -> HttpReply:
    connection = http.client.HTTPConnection(asked.host)
    connection.sock = stream
    given = {name.lower() for name, _ in asked.headers}
    connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
    standard = [("Host", asked.host), ("User-Agent", "relbuild"), ("Connection", "close")]
    if asked.body:
        standard.append(("Content-Length", str(len(asked.body.encode()))))
    for name, value in (*((name, value) for name, value in standard if name.lower() not in given), *asked.headers):
        connection.putheader(name, value)
    connection.endheaders(asked.body.encode() or None)
    with connection.getresponse() as response:
        # One byte more tells whether that is all.
        body = response.read(PROBE_ANSWER_LIMIT + 1)
        whole = len(body) <= PROBE_ANSWER_LIMIT
        if response.length and whole:
            raise http.client.IncompleteRead(body, response.length)
        return HttpReply(response.status, tuple(response.headers.items()), body[:PROBE_ANSWER_LIMIT], whole)


def _reason(error: Exception, instance: LaunchedInstance) -> str:
    """Return the text of an error, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"the response is not TLS: ask without 'tls' ({error})"
    if isinstance(error, http.client.BadStatusLine):
        if str(error).startswith(_TLS_ALERT):
            return "the response is TLS, not HTTP: ask with 'tls: true'"
        return f"the response is not HTTP: {quote_answer(str(error), 200)}"
    said = str(error) or type(error).__name__
    return f"{said}{_listening(instance)}" if isinstance(error, ConnectionRefusedError) else said


def _listening(instance: LaunchedInstance) -> str:
    """Return where the instance listens, as the end of a sentence.

    "" where it does not, or that cannot be told.
    """
    try:
        found = list_listeners(instance)
    except (OSError, RelbuildError):
        return ""
    ports = [f"{one}{' (from inside alone)' if one.local else ''}" for one in found[:_LISTENERS_SHOWN]]
    more = ", …" if len(found) > _LISTENERS_SHOWN else ""
    return f"; it listens at {', '.join(ports)}{more}" if ports else ""


@contextlib.contextmanager
def _connected(
    instance: LaunchedInstance, port: int, path: str, deadline: float, address: str | None
) -> Iterator[socket.socket]:
    with _connection(instance, port, path, _seconds_left(deadline), address) as connection:
        yield connection


def _connection(instance: LaunchedInstance, port: int, path: str, within: float, address: str | None) -> socket.socket:
    if path:
        return connect_socket(instance, path, timeout=within)
    return instance.connect(port, timeout=within, address=address)


@contextlib.contextmanager
def _shut_down_at(deadline: float, connection: socket.socket) -> Iterator[threading.Event]:
    """Shut a connection down at the deadline, so that a server that sends slowly is cut off.

    The event tells that it was.
    """
    done = threading.Event()

    def shut_down() -> None:
        done.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_seconds_left(deadline), shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield done
    finally:
        timer.cancel()


def _encrypted(asked: HttpRequest, instance: LaunchedInstance, plain: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if asked.trust:
        data = instance.files.read(asked.trust, limit=_TRUST_LIMIT)
        if data is None:
            raise FileNotFoundError(f"the CA file '{asked.trust}' is not in the image")
        context.load_verify_locations(cadata=data.decode(errors="replace"))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # A duplicate: closing the TLS socket must not close the descriptor that the timer shuts down.
    return context.wrap_socket(plain.dup(), server_hostname=asked.host)


def _seconds_left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
