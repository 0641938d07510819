"""Ask a registry questions again whose answers are known, and compare the answers.

The standard library's HTTP client starts in a quarter of the time that httpx takes, and does what is needed here: no
body is sent, no redirect followed, nothing tried twice. Whatever is out of the ordinary (a proxy, certificates of a
host's own, an answer that is late, an error) leads to the ordinary way, which tells of it. Credentials and authorities
are those of the ordinary way.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.transfer.certificates import certificate_roots, host_certificates
from pipeline.transfer.challenge import Scope, parse_challenges, parse_scopes
from pipeline.transfer.counters import TrafficCounts, TrafficMeter, registry_endpoint
from pipeline.transfer.credentials import CredentialStore
from pipeline.transfer.machine_authorities import MachineAuthorities
from pipeline.transfer.network import USER_AGENT, Network
from pipeline.transfer.question_log import ANSWERED, KnownAnswer, NotCompared
from pipeline.transfer.registry_auth import TOKEN_ANSWER_LIMIT, RegistryAuth, TokenRequest
from pipeline.urls import Url, parse_url

CONNECTIONS = 4
"""Connections over which is asked: as many as a publication has, so that a distant registry takes no longer."""

QUESTIONS_EACH = 8
"""Questions for which a connection is worth its handshakes."""

REFUSAL_LIMIT = 64 << 10
"""Bytes of an error response, as many as the ordinary client reads."""

ANSWER_SECONDS = 10.0
"""Seconds for all of it: then the ordinary way asks, with its own patience."""


def can_be_asked(base: str, environment: Mapping[str, str]) -> bool:
    """Return whether a server is reached without a proxy and certificates of its own."""
    place = parse_url(base)
    with contextlib.suppress(RelbuildError, OSError, ValueError):
        if place is not None and Network.of(environment).reaches_directly(place):
            return place.scheme != "https" or host_certificates(certificate_roots(environment), base) is None
    return False


def ask_again(
    base: str,
    answers: Sequence[KnownAnswer],
    scopes: Sequence[str],
    *,
    namespace: str,
    environment: Mapping[str, str],
) -> Callable[[], TrafficCounts | None]:
    """Begin to ask the registry at `base`; return a function that awaits the answers.

    It returns the requests if the registry answers as it did, None if it does not, and raises NotCompared if that is
    not known. `scopes`: those of the questions, as text; `environment` has the paths of credentials, and certificates.
    """
    place = parse_url(base)
    why = "the registry is reached through a proxy, or has certificates of its own"
    try:
        if place is not None and can_be_asked(base, environment):
            wanted = tuple(scope for text in scopes for scope in parse_scopes(text))
            return _Questions(base, place, namespace, wanted, environment).ask(answers)
    except (RelbuildError, OSError, ValueError) as error:
        why = _words(error)
    return functools.partial(_refuse, why)


def _refuse(why: str) -> None:
    raise NotCompared(why)


def _late() -> str:
    return f"the registry did not answer all questions within {ANSWER_SECONDS:.0f} s"


def _status(response: http.client.HTTPResponse) -> str:
    """Return a status with its standard words: a server's own are not shown."""
    return f"status {response.status} {http.client.responses.get(response.status, '')}".rstrip()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


class _TimedStream(io.RawIOBase):
    """Bytes received on a socket until a time, however slowly they come."""

    def __init__(self, received: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._received = received
        self._sock = sock
        self._until = until

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  as its base
        """Receive once. Raises TimeoutError."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        """Close what is received."""
        self._received.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response whose headers and body are read until a time."""

    def __init__(self, sock: socket.socket, *, until: float, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        self.fp = io.BufferedReader(_TimedStream(self.fp.detach(), sock, until))


class _Differs(Exception):
    """An answer is another one."""


class _Questions:
    """Questions to one registry, in threads that have a connection each."""

    def __init__(
        self, base: str, place: Url, namespace: str, scopes: tuple[Scope, ...], environment: Mapping[str, str]
    ) -> None:
        host = base.partition("://")[2].partition("/")[0]
        self._place = place
        self._scopes = scopes
        self._auth = RegistryAuth(place, host, namespace, CredentialStore.of(environment), self._token)
        self._environment = environment
        self._trust = MachineAuthorities(Network.of(environment).ca_file)  # One for all: it is read in 20 ms.
        self._meter = TrafficMeter()
        self._waiting: deque[KnownAnswer] = deque()
        self._differs = False
        self._failure = ""
        self._until = time.monotonic() + ANSWER_SECONDS

    def ask(self, answers: Sequence[KnownAnswer]) -> Callable[[], TrafficCounts | None]:
        """Begin to ask all; return a function that awaits the answers: see `ask_again`."""
        self._waiting.extend(answers)
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(max(1, min(CONNECTIONS, len(answers) // QUESTIONS_EACH)))
        ]
        for thread in threads:
            thread.start()
        return functools.partial(self._await, threads)

    def _await(self, threads: Sequence[threading.Thread]) -> TrafficCounts | None:
        for thread in threads:
            thread.join(max(0.0, self._until - time.monotonic()))
        if self._differs:
            return None
        if not self._failure and (self._waiting or any(thread.is_alive() for thread in threads)):
            # Each closes its own connection: whoever reads from one must not be waited for.
            self._failure = _late()
        if self._failure:
            raise NotCompared(self._failure)
        return self._meter.read()

    def _work(self) -> None:
        try:
            with contextlib.closing(self._connect(self._place)) as connection:
                while not (self._failure or self._differs) and time.monotonic() < self._until:
                    try:
                        question = self._waiting.popleft()
                    except IndexError:
                        return
                    self._require_same(connection, question)
        except _Differs:
            self._differs = True
        except TimeoutError:
            self._failure = self._failure or _late()
        except Exception as error:
            self._failure = self._failure or _words(error)

    def _require_same(self, connection: http.client.HTTPConnection, known: KnownAnswer) -> None:
        """Ask a question. Raises _Differs for another answer, NotCompared if it tells nothing."""
        shown = self._auth.header(self._scopes)
        response = self._send(connection, known, shown)
        if response.status == 401:
            challenges = parse_challenges(response.headers.get_all("www-authenticate") or ())
            response.read(TOKEN_ANSWER_LIMIT)
            shown = self._auth.answer(challenges, self._scopes, shown)
            response = self._send(connection, known, shown)
        body = response.read((known.length if response.status == 200 else REFUSAL_LIMIT) + 1)
        if response.status not in ANSWERED:
            raise NotCompared(f"the registry answered with {_status(response)}")
        if not response.isclosed() or response.status != known.status:
            raise _Differs
        if known.digest and response.getheader("docker-content-digest") != known.digest:
            raise _Differs
        if known.size and response.getheader("content-length") != known.size:
            raise _Differs
        if known.body and (str(Digest.of(body)), response.getheader("link", "")) != (known.body, known.link):
            raise _Differs

    def _send(
        self, connection: http.client.HTTPConnection, known: KnownAnswer, authorization: str
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": USER_AGENT, "Accept": known.accept or "*/*"}
        if authorization:
            headers["Authorization"] = authorization
        connection.request(known.method, known.target, headers=headers)
        response = connection.getresponse()
        self._meter.request(known.method, response.status, registry_endpoint(known.target))
        return response

    def _connect(self, place: Url) -> http.client.HTTPConnection:
        seconds = max(0.001, self._until - time.monotonic())
        host, port = place.origin[1:]
        made = (
            http.client.HTTPSConnection(host, port, timeout=seconds, context=self._trust)
            if place.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=seconds)
        )
        timed = functools.partial(_TimedResponse, until=self._until)
        made.response_class = cast("type[http.client.HTTPResponse]", timed)
        return made

    def _token(self, wanted: TokenRequest) -> tuple[int, bytes]:
        """Send a request to a token server; raise NotCompared where it is out of the ordinary."""
        place = parse_url(wanted.url)
        if place is None or not can_be_asked(wanted.url, self._environment):
            raise NotCompared("the token server is reached through a proxy, or has certificates of its own")
        headers = {"User-Agent": USER_AGENT}
        if wanted.authorization:
            headers["Authorization"] = wanted.authorization
        if wanted.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        method = "GET" if wanted.form is None else "POST"
        target = wanted.url.partition("://")[2]
        with contextlib.closing(self._connect(place)) as connection:
            connection.request(method, f"/{target.partition('/')[2]}", body=wanted.form, headers=headers)
            response = connection.getresponse()
            body = response.read(TOKEN_ANSWER_LIMIT + 1)
        if response.status != 200 or len(body) > TOKEN_ANSWER_LIMIT:
            raise NotCompared(f"the token server answered with {_status(response)}")
        self._meter.request(method, response.status, "other server")
        return response.status, body
